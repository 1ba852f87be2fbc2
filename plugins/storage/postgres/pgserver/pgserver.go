// Package pgserver runs a PostgreSQL server of a test's own: on a unix socket and a
// loopback port, in a folder that goes with the test, as a user without rights (the
// server refuses to run as root). It can be killed and started again.
package pgserver

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is a running server; database, role and schema owner are "commucat".
type Server struct {
	// Dir is the folder of the unix socket, Port the TCP port on 127.0.0.1.
	Dir  string
	Port int

	t    testing.TB
	bin  string
	data string
	cred *syscall.Credential
	cmd  *exec.Cmd
	log  string
}

// Start makes a database cluster and runs a server on it until the test ends.
// settings are lines of postgresql.conf.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	bin, err := find()
	if err != nil {
		t.Fatal(err)
	}
	s := folder(t, bin)
	s.command("initdb", "-D", s.data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
	s.configure(append([]string{
		"listen_addresses = '127.0.0.1'", "max_connections = 100", "shared_buffers = 128MB", "logging_collector = off", "log_min_messages = fatal",
	}, settings...)...)
	s.Run()
	s.SQL("postgres", "CREATE ROLE commucat LOGIN")
	s.SQL("postgres", "CREATE DATABASE commucat OWNER commucat")
	return s
}

// folder is the place of a server, with no database yet.
func folder(t testing.TB, bin string) *Server {
	t.Helper()
	// The server's user must reach the folder, which t.TempDir does not allow; the
	// path of a socket is short.
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := &Server{Dir: dir, t: t, bin: bin, data: filepath.Join(dir, "data"), log: filepath.Join(dir, "log"), Port: freePort(t)}
	if err := s.own(); err != nil {
		t.Fatal(err)
	}
	return s
}

// configure adds lines to postgresql.conf.
func (s *Server) configure(lines ...string) {
	s.t.Helper()
	lines = append(lines, fmt.Sprintf("port = %d", s.Port), fmt.Sprintf("unix_socket_directories = '%s'", s.Dir))
	f, err := os.OpenFile(filepath.Join(s.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// Standby runs a second server that follows this one by streaming replication.
func (s *Server) Standby() *Server {
	s.t.Helper()
	b := folder(s.t, s.bin)
	b.command("pg_basebackup", "-D", b.data, "-h", s.Dir, "-p", strconv.Itoa(s.Port), "-U", "postgres", "-R", "-c", "fast", "--no-sync")
	b.configure()
	b.Run()
	return b
}

// Promote makes a standby a server of its own, and waits until it is.
func (s *Server) Promote() {
	s.t.Helper()
	if s.SQL("postgres", "SELECT pg_promote(true, 60)") != "t" {
		s.t.Fatal("the standby was not promoted")
	}
}

// Set changes a setting of the running server.
func (s *Server) Set(name, value string) {
	s.t.Helper()
	s.SQL("postgres", fmt.Sprintf("ALTER SYSTEM SET %s = '%s'", name, value))
	s.SQL("postgres", "SELECT pg_reload_conf()")
}

// Certify makes the server offer TLS with a certificate and key, PEM; with only it
// takes no other connections over TCP.
func (s *Server) Certify(cert, key []byte, only bool) {
	s.t.Helper()
	names := []string{filepath.Join(s.data, "tls.crt"), filepath.Join(s.data, "tls.key")}
	for i, b := range [][]byte{cert, key} {
		err := os.WriteFile(names[i], b, 0o600)
		if err == nil && s.cred != nil {
			err = os.Chown(names[i], int(s.cred.Uid), int(s.cred.Gid))
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	if only {
		s.hba("hostnossl all all all reject")
	}
	s.SQL("postgres", fmt.Sprintf("ALTER SYSTEM SET ssl_cert_file = '%s'", names[0]))
	s.SQL("postgres", fmt.Sprintf("ALTER SYSTEM SET ssl_key_file = '%s'", names[1]))
	s.Set("ssl", "on")
}

// MoveLog puts the write-ahead log into another folder, of a file system of its own. The
// server is restarted.
func (s *Server) MoveLog(dir string) {
	s.t.Helper()
	s.Stop()
	err := os.Chmod(dir, 0o755)
	if err == nil && s.cred != nil {
		err = os.Chown(dir, int(s.cred.Uid), int(s.cred.Gid))
	}
	from := filepath.Join(s.data, "pg_wal")
	if err == nil {
		var out []byte
		if out, err = exec.Command("cp", "-a", from, filepath.Join(dir, "wal")).CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	if err == nil {
		err = errors.Join(os.RemoveAll(from), os.Symlink(filepath.Join(dir, "wal"), from))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.Run()
}

// hba puts a rule before those of pg_hba.conf.
func (s *Server) hba(rule string) {
	s.t.Helper()
	name := filepath.Join(s.data, "pg_hba.conf")
	rules, err := os.ReadFile(name)
	if err == nil {
		err = os.WriteFile(name, append([]byte(rule+"\n"), rules...), 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// find looks for the server where distributions put it.
func find() (string, error) {
	all, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	if len(all) == 0 {
		p, err := exec.LookPath("postgres")
		if err != nil {
			return "", errors.New("the PostgreSQL server is missing: make deps installs it")
		}
		all = []string{p}
	}
	slices.Sort(all)
	return filepath.Dir(all[len(all)-1]), nil
}

// own gives the folder to a user without rights, where the test runs as root.
func (s *Server) own() error {
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return err
	}
	s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return errors.Join(os.Chown(s.Dir, int(uid), int(gid)), os.Chmod(s.Dir, 0o755)) // clients of other users reach the socket
}

func (s *Server) prepare(name string, args ...string) *exec.Cmd {
	path := filepath.Join(s.bin, name)
	if _, err := os.Stat(path); err != nil { // one of the system
		path = filepath.Join("/bin", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = s.Dir
	cmd.Env = []string{"PATH=" + s.bin + ":/usr/bin:/bin", "LC_ALL=C", "HOME=" + s.Dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (s *Server) command(name string, args ...string) {
	s.t.Helper()
	if out, err := s.prepare(name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// Address is the server's unix socket as the plugin's configuration names it.
func (s *Server) Address() string { return s.Dir + ":" + strconv.Itoa(s.Port) }

// SQL runs a statement as the superuser.
func (s *Server) SQL(database, statement string) string {
	s.t.Helper()
	cmd := s.prepare("psql", "-h", s.Dir, "-p", strconv.Itoa(s.Port), "-U", "postgres", "-d", database, "-At", "-v", "ON_ERROR_STOP=1", "-c", statement)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", statement, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Tool runs one of the programs that come with the server, as the superuser.
func (s *Server) Tool(name string, args ...string) {
	s.t.Helper()
	s.command(name, append([]string{"-h", s.Dir, "-p", strconv.Itoa(s.Port), "-U", "postgres"}, args...)...)
}

// Keep copies the files of the stopped server, and answers what puts them back.
func (s *Server) Keep() (back func()) {
	s.t.Helper()
	kept := s.data + ".kept"
	s.command("cp", "-a", s.data, kept)
	return func() {
		s.t.Helper()
		s.command("rm", "-r", s.data)
		s.command("mv", kept, s.data)
	}
}

// Guard makes a role that must show a password on TCP.
func (s *Server) Guard(role, password string) {
	s.t.Helper()
	s.hba("host all " + role + " 127.0.0.1/32 scram-sha-256")
	s.SQL("postgres", "CREATE ROLE "+role+" LOGIN PASSWORD '"+password+"'")
	s.SQL("postgres", "SELECT pg_reload_conf()")
}

// Run starts the server and waits until it answers.
func (s *Server) Run() {
	s.t.Helper()
	log, err := os.OpenFile(s.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	cmd := s.prepare("postgres", "-D", s.data)
	cmd.Stdout, cmd.Stderr = log, log
	// Its children end with it when it is killed; they notice by themselves.
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.cmd = cmd
	s.t.Cleanup(func() { s.stop(cmd, syscall.SIGINT) })
	limit := time.Now().Add(time.Minute)
	for {
		// pg_isready's answer is an exit code; there is nothing to wait on.
		if s.prepare("pg_isready", "-q", "-h", s.Dir, "-p", strconv.Itoa(s.Port)).Run() == nil {
			return
		}
		if time.Now().After(limit) || cmd.ProcessState != nil {
			b, _ := os.ReadFile(s.log)
			s.t.Fatalf("the server did not start\n%s", bytes.TrimSpace(b))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Kill ends the server as a power failure of its process would: SIGKILL.
func (s *Server) Kill() {
	s.t.Helper()
	s.stop(s.cmd, syscall.SIGKILL)
	// The children notice the death of their parent; until then they hold the
	// shared memory, and a new server refuses to start.
	pid := filepath.Join(s.data, "postmaster.pid")
	if err := os.Remove(pid); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Error(err)
	}
}

// Stop ends the server in order, cutting its clients (fast shutdown).
func (s *Server) Stop() { s.stop(s.cmd, syscall.SIGINT) }

// Freeze halts the server's main process and children; the function returned lets
// them go on.
func (s *Server) Freeze() (thaw func()) {
	s.t.Helper()
	pids := append(children(s.cmd.Process.Pid), s.cmd.Process.Pid)
	for _, p := range pids {
		_ = syscall.Kill(p, syscall.SIGSTOP)
	}
	return func() {
		for _, p := range pids {
			_ = syscall.Kill(p, syscall.SIGCONT)
		}
	}
}

// children are the processes whose parent is pid.
func children(pid int) (out []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		if len(f) > 1 && f[1] == strconv.Itoa(pid) {
			if p, err := strconv.Atoi(filepath.Base(filepath.Dir(n))); err == nil {
				out = append(out, p)
			}
		}
	}
	return out
}

func (s *Server) stop(cmd *exec.Cmd, sig syscall.Signal) {
	if cmd.ProcessState != nil {
		return
	}
	kids := children(cmd.Process.Pid)
	_ = cmd.Process.Signal(sig)
	_ = cmd.Wait() // how it ended was asked for
	limit := time.Now().Add(20 * time.Second)
	for _, k := range kids {
		for syscall.Kill(k, 0) == nil && time.Now().Before(limit) {
			time.Sleep(5 * time.Millisecond)
		}
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
