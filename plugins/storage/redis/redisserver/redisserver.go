// Package redisserver runs a Redis server of a test's own, on a loopback port and in a
// folder that goes with the test. It can be killed, emptied and started again.
package redisserver

import (
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
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
	cmd  *exec.Cmd
}

// Start runs a server until the test ends; args are added to its command line.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir(), args: args, Port: freePort(t)}
	s.Run()
	return s
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
	args := append([]string{"--port", strconv.Itoa(s.Port), "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no"}, s.args...)
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
	c, err := net.DialTimeout("tcp", s.Address(), 10*time.Second)
	if err == nil {
		defer c.Close()
		_, err = c.Write([]byte("FLUSHALL\r\n"))
	}
	answer := make([]byte, len("+OK"))
	if err == nil {
		_, err = io.ReadFull(c, answer)
	}
	if err != nil || string(answer) != "+OK" {
		s.t.Errorf("FLUSHALL: %q %v", answer, err)
	}
}
