package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Argument is the hidden first argument that makes the program the trampoline.
const Argument = "sandboxed-plugin"

// Profile says what a confined process may do. The zero Profile allows nothing but
// reading a few system files and the sockets that the process was given.
type Profile struct {
	// UID and GID are the process's own user; both zero keeps the relay's.
	UID int `json:"uid,omitempty"`
	GID int `json:"gid,omitempty"`
	// Read and Write are files and folders (with everything below) beyond the
	// system's; Write includes reading. Missing ones are an error.
	Read  []string `json:"read,omitempty"`
	Write []string `json:"write,omitempty"`
	// Run are the programs that the process may start. With at least one it may
	// have children and open listening TCP sockets of its own.
	Run []string `json:"run,omitempty"`
	// Outbound allows TCP and UDP sockets to other hosts.
	Outbound bool `json:"outbound,omitempty"`
	// Datagrams says that the process has been lent UDP sockets, whose replies must
	// pass.
	Datagrams bool `json:"datagrams,omitempty"`
	// Memory bounds the private writable memory in bytes, Descriptors the open
	// descriptors, Processes the threads of the own user; 0 is no bound.
	Memory      uint64 `json:"memory,omitempty"`
	Descriptors uint64 `json:"descriptors,omitempty"`
	Processes   uint64 `json:"processes,omitempty"`
	// BestEffort goes on where the kernel lacks Landlock or seccomp; without it that
	// is an error.
	BestEffort bool `json:"best_effort,omitempty"`
	// Parent is the relay's process id; Wrap sets it.
	Parent int `json:"parent,omitempty"`
}

// children says that the process may start others.
func (p Profile) children() bool { return len(p.Run) > 0 }

// Wrap turns cmd, complete but for this, into its confined form: self is started
// with Argument instead, and executes cmd's program. self is the trampoline's path,
// "/proc/self/exe" where empty; a name that is looked up when the process starts.
//
// The program's environment gets PATH, TMPDIR and a memory limit for Go's
// collector; standard input is empty.
func Wrap(cmd *exec.Cmd, p Profile, self string) error {
	if cmd.Path == "" || len(cmd.Args) == 0 {
		return errors.New("sandbox: no command")
	}
	if self == "" {
		self = "/proc/self/exe"
	}
	p.Parent = os.Getpid()
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	cmd.Args = slices.Concat([]string{cmd.Args[0], Argument, string(text), cmd.Path}, cmd.Args)
	cmd.Path, cmd.Stdin, cmd.Err = self, nil, nil
	if cmd.Env == nil {
		cmd.Env = []string{} // nil would be the relay's
	}
	set := func(name, value string) {
		if !slices.ContainsFunc(cmd.Env, func(s string) bool { return strings.HasPrefix(s, name+"=") }) {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	set("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if len(p.Write) > 0 {
		set("TMPDIR", p.Write[0])
		set("HOME", p.Write[0])
	}
	if p.Memory > 0 {
		set("GOMEMLIMIT", fmt.Sprint(p.Memory/10*9))
	}
	return nil
}

// unwrap reads the trampoline's arguments.
func unwrap(args []string) (p Profile, program string, argv []string, err error) {
	if len(args) < 5 || args[1] != Argument {
		return p, "", nil, errors.New("not started by the relay")
	}
	d := json.NewDecoder(strings.NewReader(args[2]))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, "", nil, errors.New("the profile cannot be read")
	}
	return p, args[3], args[4:], nil
}

// Requested says that the command line asks for the trampoline: then Main must be
// called before anything else.
func Requested(args []string) bool { return len(args) > 1 && args[1] == Argument }
