package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/core/server"
)

// wide are limits for tests in which every client comes from one address.
const wide = `[server]
drain = "1s"
[limits]
handshake_rate = 6000000
handshake_burst = 100000
pending_per_source = 4096
[log]
level = "warn"
`

// process is a relay that runs as a program of its own.
type process struct {
	server.Ready
	cmd *exec.Cmd
	out *bufio.Reader

	mu    sync.Mutex
	notes bytes.Buffer
	more  chan struct{} // one slot: standard error has grown
}

// Write collects standard error.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
	return p.notes.Write(b)
}

// waitFor says whether text comes on standard error before the time is over.
func (p *process) waitFor(text string, within time.Duration) bool {
	over := time.NewTimer(within)
	defer over.Stop()
	for !strings.Contains(p.said(), text) {
		select {
		case <-p.more:
		case <-over.C:
			return false
		}
	}
	return true
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.notes.String()
}

// serve starts "commucat serve --json" without waiting for it.
func serve(dir string, args ...string) (*process, error) { return serveIn(nil, dir, args...) }

// serveIn is serve in another environment than this one.
func serveIn(env []string, dir string, args ...string) (*process, error) {
	p := &process{more: make(chan struct{}, 1)}
	p.cmd = exec.Command("commucat", append([]string{"serve", "--json", "--data", dir}, args...)...)
	p.cmd.Stderr, p.cmd.Env = p, env
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(stdout)
	return p, p.cmd.Start()
}

// spawn is serve for a test, which ends it.
func spawn(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p, err := serve(dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

// ready waits for the first line.
func (p *process) ready() error {
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("no ready line: %w\n%s", err, p.said())
	}
	return json.Unmarshal(line, &p.Ready)
}

// kill ends the process as a power cut would, as far as the process knows.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// stop asks the relay to drain and gives its exit code.
func (p *process) stop() (int, error) {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, p.out)
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode(), nil
}

// terminate is stop for a test.
func (p *process) terminate(t *testing.T) int {
	t.Helper()
	code, err := p.stop()
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// address is where the relay listens.
func (p *process) address() string { return p.Listeners[0].Address }

// dataFolder makes a data folder with a configuration.
func dataFolder(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "commucat.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// relay starts a relay on a free port and waits until it is ready.
func relay(t *testing.T, dir string) *process {
	t.Helper()
	p := spawn(t, dir, "--listen", "127.0.0.1:0")
	if err := p.ready(); err != nil {
		t.Fatal(err)
	}
	return p
}

// commucat runs one command to its end.
func commucat(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, notes strings.Builder
	cmd := exec.Command("commucat", args...)
	cmd.Stdout, cmd.Stderr = &out, &notes
	_ = cmd.Run() // the code says it
	return cmd.ProcessState.ExitCode(), out.String(), notes.String()
}
