package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a program on a pseudo-terminal of 80 columns and 24 rows.
type terminal struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	cmd    *exec.Cmd

	mu     sync.Mutex
	screen bytes.Buffer
	before unix.Termios
}

func openTerminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	fatal(err)
	fd := int(master.Fd())
	fatal(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	fatal(err)
	slave, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	fatal(err)
	fatal(unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}))
	x := &terminal{t: t, master: master, slave: slave}
	x.before = x.mode()
	x.cmd = exec.Command("commucat", args...)
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = slave, slave, slave
	x.cmd.Env = append(os.Environ(), "TERM=xterm")
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	fatal(x.cmd.Start())
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			x.mu.Lock()
			x.screen.Write(b[:n])
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		if x.cmd.ProcessState == nil {
			_ = x.cmd.Process.Kill()
			_ = x.cmd.Wait()
		}
		slave.Close()
		<-read // the last slave is closed: the master reads an error
		master.Close()
	})
	return x
}

func (x *terminal) mode() unix.Termios {
	m, err := unix.IoctlGetTermios(int(x.slave.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	return *m
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.screen.String()
}

func (x *terminal) see(want string) {
	x.t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(x.text(), want); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			x.t.Fatalf("no %q on the screen: %q", want, x.text())
		}
	}
}

func (x *terminal) write(s string) {
	if _, err := x.master.WriteString(s); err != nil {
		x.t.Fatal(err)
	}
}

// left waits for the end, and checks that the terminal is as it was.
func (x *terminal) left(code int) {
	x.t.Helper()
	_ = x.cmd.Wait()
	if got := x.cmd.ProcessState.ExitCode(); got != code {
		x.t.Errorf("ended with %d, not %d: %q", got, code, x.text())
	}
	if x.mode() != x.before {
		x.t.Error("the terminal's mode was left changed")
	}
	x.see("\x1b[?1049l") // out of the other screen
	x.see("\x1b[?25h")   // with a cursor
}

// TestChat: two accounts, one of them in front of a terminal.
func TestChat(t *testing.T) {
	p := relay(t, dataFolder(t, wide))
	dir := t.TempDir()
	alice, bob := filepath.Join(dir, "alice"), filepath.Join(dir, "bob")
	run := func(args ...string) string {
		t.Helper()
		code, out, notes := commucat(t, append([]string{"client"}, args...)...)
		if code != exitOK {
			t.Fatalf("%v: %d %s", args, code, notes)
		}
		return out
	}
	run("register", "--server", p.Invite, "--handle", "alice", "--profile", alice)
	run("register", "--server", p.Invite, "--handle", "bob", "--profile", bob)

	x := openTerminal(t, "client", "chat", "--profile", alice)
	x.see("connected by ")
	x.write("/to bob\rhello bob\r")
	x.see("✓ me to bob: hello bob")
	if out := run("listen", "--profile", bob, "--count", "1", "--timeout", "20s"); !strings.Contains(out, "  hello bob\n") {
		t.Errorf("bob got %q", out)
	}
	run("send", "--profile", bob, "--to", "alice", "hello \x1b[31malice")
	x.see(": hello \ufffd[31malice")
	x.write("/to nobody\ranyone\r")
	x.see("✗ me to nobody: anyone")
	x.write("\x03")
	x.left(exitOK)

	// The past is there again; a signal leaves the terminal clean as well.
	x = openTerminal(t, "client", "chat", "--profile", alice, "--to", "bob")
	x.see("✓ me to bob: hello bob")
	x.see("connected by ")
	if err := x.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	x.left(exitOK)
	if st, err := os.Stat(filepath.Join(alice, historyFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("history: %v %v", st, err)
	}

	if code, _, notes := commucat(t, "client", "chat", "--profile", alice); code != exitUsage || !strings.Contains(notes, "chat needs a terminal") {
		t.Errorf("without a terminal: %d %s", code, notes)
	}
}

// TestHistory: the newest lines of a long history are read, and the file is cut.
func TestHistory(t *testing.T) {
	dir := t.TempDir()
	h, err := openHistory(dir)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", 4000)
	for i := range 1200 {
		if err := h.add(entry{Key: fmt.Sprint(i), Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.add(entry{Key: "1199", Text: "changed", Mark: markStored}); err != nil {
		t.Fatal(err)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	if h, err = openHistory(dir); err != nil {
		t.Fatal(err)
	}
	defer h.close()
	st, err := os.Stat(filepath.Join(dir, historyFile))
	if n := len(h.entries); err != nil || n < 200 || n > 300 || h.entries[n-1].Text != "changed" || h.entries[n-2].Key != "1198" || st.Size() > maxHistory {
		t.Errorf("%d entries, last %+v, %v", n, h.entries[n-1], err)
	}
}

// TestKeys: keys come in pieces, and most control sequences mean nothing.
func TestKeys(t *testing.T) {
	s := &screen{height: 24}
	var rest []byte
	for _, b := range []byte("hé\x1b[A\x1b[200~日\x1b[201~x\x7f\x1bOP!\x00\x1b[5~") {
		var quit bool
		if rest, quit = s.keys(append(rest, b)); quit {
			t.Fatal("ended")
		}
	}
	if string(s.input) != "hé日!" || len(rest) != 0 || s.up != 12 {
		t.Errorf("input %q, rest %q, up %d", string(s.input), rest, s.up)
	}
	if _, quit := s.keys([]byte("\x15/quit\r")); !quit {
		t.Error("not ended")
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("a\x1b[A\x1bO\xe6\x97"), 40, 12)
	f.Fuzz(func(t *testing.T, typed []byte, width, height int) {
		s := &screen{width: width % 300, height: height % 100}
		rest, _ := s.keys(typed)
		if len(rest) > len(typed) || len(s.input) > maxInput {
			t.Error(len(rest), len(s.input))
		}
		if s.width > 0 {
			for _, row := range s.wrap(string(s.input)) {
				if n := span([]rune(row)); n > s.width && n > 2 {
					t.Errorf("a row of %d in %d columns", n, s.width)
				}
			}
		}
	})
}
