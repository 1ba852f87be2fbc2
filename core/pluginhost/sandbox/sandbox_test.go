package sandbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/core/pluginhost/sandbox/sandboxtest"
)

// TestMain lets the test binary be the trampoline, and the program that tries.
func TestMain(m *testing.M) {
	if sandbox.Requested(os.Args) {
		os.Exit(sandbox.Main(os.Args, os.Stderr))
	}
	if len(os.Args) > 2 && os.Args[1] == "try" {
		os.Exit(try(os.Args[2]))
	}
	if len(os.Args) > 1 && os.Args[1] == "wait" {
		fmt.Print("x")
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// order is what the trying process is told.
type order struct {
	World sandboxtest.World
	Which []string
}

func attempts(which []string) []sandboxtest.Attempt {
	sets := map[string]func() []sandboxtest.Attempt{
		"always": sandboxtest.Always, "closed": sandboxtest.Closed, "quiet": sandboxtest.Quiet,
		"stored": sandboxtest.Stored, "memory": sandboxtest.Memory, "foreign": sandboxtest.Foreign,
		"granted": sandboxtest.Granted, "outbound": sandboxtest.Outbound,
		"starts": func() []sandboxtest.Attempt { return sandboxtest.Starts("/bin/true") },
	}
	var out []sandboxtest.Attempt
	for _, w := range which {
		out = append(out, sets[w]()...)
	}
	return out
}

func try(text string) int {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return 2
	}
	if err := json.NewEncoder(os.Stdout).Encode(sandboxtest.Try(attempts(o.Which), o.World)); err != nil {
		return 2
	}
	return 0
}

// world makes the targets.
func world(t *testing.T) sandboxtest.World {
	t.Helper()
	dir := t.TempDir()
	w := sandboxtest.World{
		Key: filepath.Join(dir, "key"), Folder: filepath.Join(dir, "folder"), Outside: filepath.Join(dir, "outside"),
		State: filepath.Join(dir, "state"), Parent: os.Getpid(), Unix: filepath.Join(dir, "socket"), Abstract: "commucat-test-" + filepath.Base(dir) + fmt.Sprint(os.Getpid()),
	}
	w.Writable = filepath.Join(w.Outside, "file")
	for name, mode := range map[string]os.FileMode{w.Folder: 0o755, w.Outside: 0o777, w.State: 0o777} {
		if err := errors.Join(os.Mkdir(name, 0o700), os.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]os.FileMode{w.Key: 0o644, w.Writable: 0o666} { // modes that would allow it
		if err := errors.Join(os.WriteFile(name, []byte("secret"), 0o600), os.Chmod(name, mode)); err != nil {
			t.Fatal(err)
		}
	}
	for p := dir; len(p) > len(os.TempDir()); p = filepath.Dir(p) { // another user must get there
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", w.Unix}, {"unix", "@" + w.Abstract}} {
		ln, err := net.Listen(l[0], l[1])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		if l[0] == "tcp" {
			w.TCP = ln.Addr().String()
		}
	}
	if err := os.Chmod(w.Unix, 0o777); err != nil {
		t.Fatal(err)
	}
	return w
}

// run has a process make the attempts, confined by p unless that is nil.
func run(t *testing.T, p *sandbox.Profile, w sandboxtest.World, which ...string) []sandboxtest.Result {
	t.Helper()
	text, err := json.Marshal(order{w, which})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	cmd := exec.Command("/proc/self/fd/3", "try", string(text))
	cmd.ExtraFiles = []*os.File{program}
	cmd.Env = []string{"GOTRACEBACK=none", "GORACE=atexit_sleep_ms=10"}
	var notes strings.Builder
	cmd.Stderr = &notes
	if p != nil {
		if err := sandbox.Wrap(cmd, *p, ""); err != nil {
			t.Fatal(err)
		}
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, notes.String())
	}
	var results []sandboxtest.Result
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	return results
}

func needKernel(t *testing.T) {
	t.Helper()
	k := sandbox.Probe()
	t.Logf("this kernel: %+v", k)
	if !k.Complete() {
		t.Skipf("this kernel has no %s", k.Missing())
	}
}

// TestAttemptsAreReal: outside the sandbox nothing stands in the way of the attempts,
// so that a denial inside is the sandbox's.
func TestAttemptsAreReal(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	w := world(t)
	w.Memory = 1 << 30
	for _, r := range run(t, nil, w, "closed", "quiet", "memory", "always") {
		if r.Denied {
			t.Errorf("%s: %s", r.Name, r.Error)
		}
	}
}

// memory is what a confined process may take.
const memory = 512 << 20

func TestEverythingForbiddenIsDenied(t *testing.T) {
	own := stranger()
	denied(t, []prison{
		{"closed", sandbox.Profile{UID: own, GID: own}, []string{"always", "closed", "quiet", "foreign"}},
		{"the relay's user", sandbox.Profile{}, []string{"always", "closed", "quiet", "foreign"}},
		{"with a folder", sandbox.Profile{UID: own, GID: own, Write: []string{"STATE"}}, []string{"always", "closed", "quiet", "stored"}},
		{"outbound", sandbox.Profile{UID: own, GID: own, Outbound: true}, []string{"always", "quiet", "foreign"}},
		{"outbound, the relay's user", sandbox.Profile{Outbound: true}, []string{"always", "quiet", "foreign"}},
		{"with a program", sandbox.Profile{UID: own, GID: own, Run: []string{"/bin/ls"}}, []string{"always", "foreign"}},
	})
}

// TestBudgetMemory: more memory than is granted is denied.
func TestBudgetMemory(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector needs address space without end")
	}
	own := stranger()
	denied(t, []prison{{"little memory", sandbox.Profile{UID: own, GID: own, Memory: memory}, []string{"memory"}}})
}

// stranger is another user if this one can become him, else 0.
func stranger() int {
	if os.Geteuid() == 0 {
		return 61234
	}
	return 0
}

// prison is a profile and what is tried in it.
type prison struct {
	name    string
	profile sandbox.Profile
	which   []string
}

// denied fails for everything that is possible in the prisons.
func denied(t *testing.T, tests []prison) {
	t.Helper()
	needKernel(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := world(t)
			w.Memory = memory
			for i, name := range tt.profile.Write {
				if name == "STATE" {
					tt.profile.Write[i] = w.State
				}
			}
			denied := 0
			for _, r := range run(t, &tt.profile, w, tt.which...) {
				t.Logf("denied %-5v  %-32s %s", r.Denied, r.Name, r.Error)
				if !r.Denied {
					t.Errorf("%s is possible", r.Name)
				}
				denied++
			}
			if denied == 0 {
				t.Error("nothing was tried")
			}
		})
	}
}

// TestWhatIsGrantedWorks: the sandbox takes nothing away that a plugin needs.
func TestWhatIsGrantedWorks(t *testing.T) {
	needKernel(t)
	own := 0
	if os.Geteuid() == 0 {
		own = 61234
	}
	for _, tt := range []struct {
		name    string
		profile sandbox.Profile
		which   []string
	}{
		{"folder", sandbox.Profile{}, []string{"granted"}},
		{"outbound", sandbox.Profile{Outbound: true}, []string{"granted", "outbound"}},
		{"program", sandbox.Profile{Run: []string{"/bin/true"}}, []string{"granted", "starts"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := world(t)
			tt.profile.UID, tt.profile.GID, tt.profile.Write = own, own, []string{w.State}
			for _, r := range run(t, &tt.profile, w, tt.which...) {
				if r.Denied {
					t.Errorf("%s: %s", r.Name, r.Error)
				}
			}
		})
	}
}

// TestBudgetInspect looks at a confined process that waits.
func TestBudgetInspect(t *testing.T) {
	needKernel(t)
	p := sandbox.Profile{Memory: 1 << 30}
	if os.Geteuid() == 0 {
		p.UID, p.GID = 61234, 61234
	}
	p.Memory *= 1 - raceFactor
	cmd := exec.Command("/proc/self/fd/3", "wait")
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd.ExtraFiles = []*os.File{self}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sandbox.Wrap(cmd, p, ""); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	items, err := sandbox.Inspect(cmd.Process.Pid, p, sandbox.Probe())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range items {
		t.Logf("%+v", i)
		if !i.On && (i.Name != sandbox.ItemUser || p.UID != 0) && (i.Name != sandbox.ItemMemory || p.Memory != 0) {
			t.Errorf("%s is not in force: %s", i.Name, i.Detail)
		}
	}
	if !sandbox.Confined(cmd.Process.Pid) || !sandbox.Confined(1<<22+1) || sandbox.Confined(os.Getpid()) {
		t.Error("a plugin is not told from this process")
	}
	if _, err := sandbox.Inspect(1<<22+1, p, sandbox.Probe()); err == nil {
		t.Error("a process that is not there was inspected")
	}
}

// TestRefusals are errors of one line.
func TestRefusals(t *testing.T) {
	needKernel(t)
	missing := filepath.Join(t.TempDir(), "absent")
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"by hand":       {[]string{"x", sandbox.Argument}, "not started by the relay"},
		"bad profile":   {[]string{"x", sandbox.Argument, "{", "/bin/true", "true"}, "the profile cannot be read"},
		"unknown field": {[]string{"x", sandbox.Argument, `{"uid":1,"root":true}`, "/bin/true", "true"}, "the profile cannot be read"},
		"other parent":  {[]string{"x", sandbox.Argument, `{"parent":1}`, "/bin/true", "true"}, "the relay has ended"},
		"no folder":     {nil, missing + ": no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := &exec.Cmd{Path: self, Args: tt.args}
			if tt.args == nil {
				cmd = exec.Command("/bin/true")
				if err := sandbox.Wrap(cmd, sandbox.Profile{Read: []string{missing}}, ""); err != nil {
					t.Fatal(err)
				}
			}
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 126 {
				t.Errorf("ended with %v", err)
			}
			if want := "sandbox: " + tt.want + "\n"; string(out) != want {
				t.Errorf("said %q, not %q", out, want)
			}
		})
	}
}
