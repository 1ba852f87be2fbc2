package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/link"
)

// TestRestarts: the first end is answered at once, those that follow soon after a start
// ever later, up to a bound; a process that has lived begins anew.
func TestRestarts(t *testing.T) {
	var r restarts
	now, died := time.Unix(1e9, 0), errors.New("it died")
	if err := r.early(now); err != nil {
		t.Error("before the first start:", err)
	}
	dies := func(after time.Duration) (pause time.Duration) {
		t.Helper()
		r.began = now
		now = now.Add(after)
		r.ended(now, died)
		pause = r.next.Sub(now)
		if err := r.early(now); pause > 0 && !errors.Is(err, died) {
			t.Error("too early, and", err)
		}
		if now = now.Add(pause); r.early(now) != nil {
			t.Error("it is never late enough")
		}
		return pause
	}
	if pause := dies(0); pause != 0 {
		t.Error("the first end:", pause)
	}
	for step := restartFirst; step < restartMost; step *= 2 {
		if pause := dies(0); pause < step/2 || pause > step {
			t.Errorf("%v after a step of %v", pause, step)
		}
	}
	for range 3 {
		if pause := dies(restartHealthy - 1); pause < restartMost/2 || pause > restartMost {
			t.Error("bounded:", pause)
		}
	}
	if pause := dies(restartHealthy); pause != 0 {
		t.Error("it had lived:", pause)
	}
	if pause := dies(0); pause < restartFirst/2 || pause > restartFirst {
		t.Error("anew:", pause)
	}
}

// TestBudgetClientPluginKilled: a client whose plugin process is killed starts another one,
// with the settings of the first, and goes on.
func TestBudgetClientPluginKilled(t *testing.T) {
	if raceDetector {
		t.Skip("a plugin under the race detector needs more memory than it is allowed")
	}
	pluginFolder(t)
	srv := relay(t, dataFolder(t, wide+"[transport.door]\nplugin = \"plain\"\n"))
	invite := ""
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		invite = srv.invitation(t, 5, time.Hour)
		l, err := link.Parse(invite)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(l.Endpoints, func(e link.Endpoint) bool { return e.Transport == "door" }) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no link names the transport: %s", srv.said())
		}
	}
	folder := t.TempDir()
	alice, bob := filepath.Join(folder, "a"), filepath.Join(folder, "b")
	for handle, profile := range map[string]string{"alice": alice, "bob": bob} {
		if code, _, notes := commucat(t, "client", "register", "--server", invite, "--handle", handle, "--profile", profile, "--transport", "http2"); code != exitOK {
			t.Fatalf("register %s: %d %s", handle, code, notes)
		}
	}
	send := func(text string) {
		t.Helper()
		if code, _, notes := commucat(t, "client", "send", "--profile", alice, "--to", "bob", "--transport", "http2", text); code != exitOK {
			t.Fatalf("send: %d %s", code, notes)
		}
	}
	// The settings give the name, and the process its part.
	if err := os.WriteFile(filepath.Join(bob, settingsFile), []byte("[transport.door]\nplugin = \"plain\"\ncarry = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	listener := exec.Command("commucat", "client", "listen", "--json", "--profile", bob, "--transport", "door", "--count", "3", "--timeout", "60s")
	listener.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var notes bytes.Buffer
	listener.Stderr = &notes
	stdout, err := listener.StdoutPipe()
	if err == nil {
		err = listener.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended {
			_ = listener.Process.Kill()
			_ = listener.Wait()
			t.Logf("the listener: %s", notes.String())
		}
	}()
	lines := json.NewDecoder(stdout)
	last := 0
	for _, text := range []string{"one", "two", "three"} {
		send(text)
		var m received
		if err := lines.Decode(&m); err != nil || m.Text == nil || *m.Text != text {
			t.Fatalf("%q: %+v, %v", text, m, err)
		}
		if text == "three" {
			break
		}
		child := childOf(t, listener.Process.Pid)
		if child == last {
			t.Fatal("it is the same process")
		}
		if last = child; syscall.Kill(child, syscall.SIGKILL) != nil {
			t.Fatal("there is nothing to be killed")
		}
	}
	_, _ = io.Copy(io.Discard, stdout)
	err, ended = listener.Wait(), true
	if err != nil {
		t.Errorf("%v: %s", err, notes.String())
	}
	if code := srv.terminate(t); code != exitOK {
		t.Errorf("ended with %d: %s", code, srv.said())
	}
}

// childOf finds the only child of a process that has not ended.
func childOf(t *testing.T, parent int) (pid int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		// After the name, which may hold anything: state and parent.
		_, rest, _ := strings.Cut(string(b[bytes.LastIndexByte(b, ')')+1:]), " ")
		state, rest, _ := strings.Cut(rest, " ")
		if of, _, _ := strings.Cut(rest, " "); of == strconv.Itoa(parent) && state != "Z" {
			if pid != 0 {
				t.Fatal("it has more than one child")
			}
			if _, err := fmt.Sscan(string(b), &pid); err != nil {
				t.Fatal(err)
			}
		}
	}
	if pid == 0 {
		t.Fatal("it has no child")
	}
	return pid
}
