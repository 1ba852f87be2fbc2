// Package redisserver runs a Redis server of a test's own, on a loopback port and in a
// folder that goes with the test. It can be killed, emptied and started again.
package redisserver

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is a running server.
type Server struct {
	Port int

	t    testing.TB
	dir  string
	args []string
	file string // of a sentinel: its configuration, which it rewrites
	bus  string // port of a cluster's node
	cmd  *exec.Cmd
}

// Start runs a server until the test ends; args are added to its command line.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir(), args: args, Port: freePort(t)}
	s.Run()
	return s
}

// StartTLS runs a server that speaks TLS alone, with a certificate and key in PEM files.
func StartTLS(t testing.TB, cert, key string, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir(), Port: freePort(t)}
	s.args = append([]string{
		"--port", "0", "--tls-port", strconv.Itoa(s.Port), "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no",
	}, args...)
	s.Run()
	return s
}

// StartSentinel runs a sentinel that watches a server under a name, and alone decides
// that it is down.
func StartSentinel(t testing.TB, name string, master *Server) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir(), Port: freePort(t)}
	s.file = filepath.Join(s.dir, "sentinel.conf")
	text := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor %s 127.0.0.1 %d 1\nsentinel down-after-milliseconds %s 500\nsentinel failover-timeout %s 3000\n",
		s.Port, s.dir, name, master.Port, name, name)
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Run()
	return s
}

// StartCluster runs n servers that share all slots; args are added to each command
// line.
func StartCluster(t testing.TB, n int, args ...string) []*Server {
	t.Helper()
	all := make([]*Server, n)
	for i := range all {
		bus := strconv.Itoa(freePort(t))
		all[i] = Start(t, append([]string{"--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000"}, args...)...)
		all[i].bus = bus
	}
	const slots = 16384
	for i, s := range all {
		s.command("CLUSTER ADDSLOTSRANGE %d %d", i*slots/n, (i+1)*slots/n-1)
		if i > 0 {
			s.command("CLUSTER MEET 127.0.0.1 %d %s", all[0].Port, all[0].bus)
		}
	}
	limit := time.Now().Add(30 * time.Second)
	for _, s := range all {
		for !strings.Contains(s.Ask("CLUSTER INFO"), "cluster_state:ok") || !strings.Contains(s.Ask("CLUSTER INFO"), fmt.Sprintf("cluster_known_nodes:%d", n)) {
			if time.Now().After(limit) {
				t.Fatalf("the cluster does not come together\n%s", s.Ask("CLUSTER INFO"))
			}
			time.Sleep(10 * time.Millisecond) // other processes talk
		}
	}
	return all
}

// Address is host:port.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

// Run starts the server and waits until it answers.
func (s *Server) Run() {
	s.t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		s.t.Fatal("redis-server is missing: make deps installs it")
	}
	args := []string{s.file, "--sentinel"}
	if s.file == "" {
		args = append([]string{"--port", strconv.Itoa(s.Port), "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no"}, s.args...)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.cmd = cmd
	s.t.Cleanup(func() { s.stop(cmd, syscall.SIGKILL) })
	limit := time.Now().Add(30 * time.Second)
	for {
		c, err := net.DialTimeout("tcp", s.Address(), time.Second)
		if err == nil {
			_ = c.Close() // it was only a question
			return
		}
		if time.Now().After(limit) {
			s.t.Fatalf("redis-server did not start: %v", err)
		}
		time.Sleep(5 * time.Millisecond) // another process starts
	}
}

// Freeze halts the server, which keeps its connections; the function returned lets it
// go on.
func (s *Server) Freeze() (thaw func()) {
	s.t.Helper()
	p := s.cmd.Process
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	return func() {
		if err := p.Signal(syscall.SIGCONT); err != nil {
			s.t.Error(err)
		}
	}
}

// Kill ends the server with SIGKILL; what it held is gone.
func (s *Server) Kill() { s.stop(s.cmd, syscall.SIGKILL) }

func (s *Server) stop(cmd *exec.Cmd, sig os.Signal) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Signal(sig)
		_ = cmd.Wait() // how it ended was asked for
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// Flush empties the server, which goes on.
func (s *Server) Flush() {
	s.t.Helper()
	s.command("FLUSHALL")
}

// command must be answered with OK.
func (s *Server) command(format string, args ...any) {
	s.t.Helper()
	if answer := s.Ask(format, args...); !strings.HasPrefix(answer, "+OK") {
		s.t.Fatalf("%s: %q", fmt.Sprintf(format, args...), answer)
	}
}

// Ask sends an inline command and gives all that the server answers.
func (s *Server) Ask(format string, args ...any) string {
	s.t.Helper()
	c, err := net.DialTimeout("tcp", s.Address(), 10*time.Second)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	var answer []byte
	if err = c.SetDeadline(time.Now().Add(10 * time.Second)); err == nil {
		_, err = fmt.Fprintf(c, format+"\r\n", args...)
	}
	if err == nil {
		err = c.(*net.TCPConn).CloseWrite() // it answers what it has, and closes
	}
	if err == nil {
		answer, err = io.ReadAll(io.LimitReader(c, 1<<16))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return string(answer)
}
