package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxLine bounds the line with which a plugin process says where it listens; it holds
// a certificate.
const maxLine = 8 << 10

// runner runs the process for go-plugin. One thread starts the process and stays for
// its whole life: Pdeathsig is bound to the thread.
type runner struct {
	cmd    *exec.Cmd
	dir    string // of the control socket
	stdout *os.File
	stderr *os.File
	exited chan struct{}
	heard  chan struct{} // closed when its standard error is read to the end
	pid    int
	killed atomic.Bool
	pace   *pace // of what is thrown away
	// onStart is called when the process runs.
	onStart func()

	mu    sync.Mutex
	state *os.ProcessState
}

// newRunner completes cmd, which has environment and arguments.
func newRunner(cmd *exec.Cmd, o *Options, dir string) (*runner, error) {
	r := &runner{cmd: cmd, dir: dir, exited: make(chan struct{}), heard: make(chan struct{})}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig, cmd.SysProcAttr.Setpgid = syscall.SIGKILL, true
	cmd.Stdin = nil // the null device
	if o.Command != nil {
		if err := o.Command(cmd); err != nil {
			return nil, err
		}
	}
	if o.Owner != nil {
		if err := os.Chown(dir, o.Owner.UID, o.Owner.GID); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Start implements runner.Runner of go-plugin.
func (r *runner) Start(context.Context) error {
	stdout, out, err := os.Pipe()
	if err != nil {
		return err
	}
	stderr, errs, err := os.Pipe()
	if err != nil {
		stdout.Close()
		out.Close()
		return err
	}
	r.stdout, r.stderr = stdout, stderr
	r.cmd.Stdout, r.cmd.Stderr = out, errs
	started := make(chan error, 1)
	go r.live(started)
	err = <-started
	out.Close()
	errs.Close()
	if err != nil {
		stdout.Close()
		stderr.Close()
		return plain(err)
	}
	r.onStart()
	return nil
}

// plain leaves the descriptor's path out, which tells nobody anything.
func plain(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch errno {
		case syscall.ENOEXEC:
			return errors.New("it is no program for this machine")
		case syscall.EACCES:
			return errors.New("it may not be executed: check its mode, its folder and its file system")
		}
		return errno
	}
	return err
}

func (r *runner) live(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := r.cmd.Start(); err != nil {
		started <- err
		return
	}
	r.pid = r.cmd.Process.Pid
	started <- nil
	// While the process is not reaped its number and group cannot be another's.
	for {
		if err := unix.Waitid(unix.P_PID, r.pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = syscall.Kill(-r.pid, syscall.SIGKILL) // what it started and left behind
	_ = r.cmd.Wait()
	r.mu.Lock()
	r.state = r.cmd.ProcessState
	r.mu.Unlock()
	close(r.exited)
	// Others may hold its pipes for as long as they like.
	time.AfterFunc(lag, r.closePipes)
}

// reason says in one line how the process ended; it must have.
func (r *runner) reason() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	status, ok := r.state.Sys().(syscall.WaitStatus)
	switch {
	case ok && status.Signaled():
		return "it was killed by signal " + strconv.Itoa(int(status.Signal())) + " (" + status.Signal().String() + ")"
	case r.state.ExitCode() != 0:
		return "it ended with status " + strconv.Itoa(r.state.ExitCode())
	}
	return "it ended by itself"
}

// wasKilled says that this side ended the process; it must have ended.
func (r *runner) wasKilled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	status, ok := r.state.Sys().(syscall.WaitStatus)
	return r.killed.Load() && ok && status.Signaled()
}

// closePipes ends the reading of what the process writes.
func (r *runner) closePipes() {
	r.stdout.Close()
	r.stderr.Close()
}

// finish kills the process, if it has not ended, and ends the reading of its pipes:
// with what it wrote, unless somebody else holds them.
func (r *runner) finish() {
	if r == nil || r.pid == 0 {
		return
	}
	if r.Kill(context.Background()) == nil {
		<-r.heard
	}
	r.closePipes()
}

// clean says that the process ended without an error.
func (r *runner) clean() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.ExitCode() == 0
}

// Wait implements runner.Runner.
func (r *runner) Wait(context.Context) error {
	<-r.exited
	return nil
}

// Kill implements runner.Runner. It does not wait for ever for a process that the
// kernel does not let die.
func (r *runner) Kill(context.Context) error {
	if r.pid == 0 {
		return nil // it was never started
	}
	r.killed.Store(true)
	if err := r.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	t := time.NewTimer(tidying)
	defer t.Stop()
	select {
	case <-r.exited:
		return nil
	case <-t.C:
		return errors.New("it does not end although it was killed")
	}
}

// Stdout implements runner.Runner: the first line, bounded; the rest is thrown away.
func (r *runner) Stdout() io.ReadCloser {
	return &firstLine{from: r.stdout, left: maxLine, pace: r.pace}
}

// Stderr implements runner.Runner. go-plugin's own parser of log lines panics on
// some; it gets none.
func (r *runner) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Diagnose implements runner.Runner.
func (r *runner) Diagnose(context.Context) string { return "" }

// Name implements runner.Runner.
func (r *runner) Name() string { return "plugin" }

// ID implements runner.Runner.
func (r *runner) ID() string { return strconv.Itoa(r.pid) }

// PluginToHost implements runner.Runner. A plugin listens in its own folder and
// nowhere else.
func (r *runner) PluginToHost(network, address string) (string, string, error) {
	if network != "unix" || filepath.Dir(address) != r.dir || len(address) > 107 {
		return "", "", fmt.Errorf("it listens outside of its folder")
	}
	return network, address, nil
}

// HostToPlugin implements runner.Runner.
func (r *runner) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// firstLine gives the first line of a file and then its end; the rest is swallowed, so
// that a writer is not held up.
type firstLine struct {
	from *os.File
	left int
	pace *pace
}

func (f *firstLine) Read(p []byte) (int, error) {
	if f.left <= 0 {
		return 0, io.EOF
	}
	n, err := f.from.Read(p[:min(len(p), f.left)])
	f.left -= n
	if i := bytes.IndexByte(p[:n], '\n'); i >= 0 {
		n, f.left = i+1, 0
	}
	if err == nil && f.left == 0 {
		go func() { _, _ = io.Copy(io.Discard, pacedReader{f.from, f.pace}) }() // until the process ends
	}
	return n, err
}

// Close implements io.Closer.
func (f *firstLine) Close() error { return f.from.Close() }
