package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestAnswer(t *testing.T) {
	if got := answer("hello"); !strings.Contains(got, "roll") {
		t.Error(got)
	}
	if got := answer(" roll\n"); !strings.HasPrefix(got, "you rolled ") {
		t.Error(got)
	}
}

// program builds a program of this module and returns its path.
func program(t *testing.T, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	build := exec.Command("go", "build", "-o", out, "github.com/commucat/commucat/"+pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as programs are built, also where the race detector needs cgo
	if b, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return out
}

// start runs a program until the test ends and returns its first line.
func start(t *testing.T, stdout bool, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe := cmd.StderrPipe
	if stdout {
		pipe = cmd.StdoutPipe
	}
	r, err := pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	line, err := bufio.NewReaderSize(r, 64<<10).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return line
}

// A real relay, the bot, and a person with the command line.
func TestRoll(t *testing.T) {
	if testing.Short() {
		t.Skip("builds two programs")
	}
	relay, bot := program(t, "cmd/commucat"), program(t, "examples/bot")
	dir := t.TempDir()
	var ready struct{ Invite string }
	line := start(t, true, relay, "serve", "--json", "--data", filepath.Join(dir, "relay"), "--listen", "127.0.0.1:0")
	if err := json.Unmarshal([]byte(line), &ready); err != nil || ready.Invite == "" {
		t.Fatalf("%q: %v", line, err)
	}
	if line := start(t, false, bot, "-profile", filepath.Join(dir, "bot"), "-link", ready.Invite); !strings.Contains(line, "dice is connected") {
		t.Fatal(line)
	}
	ada := filepath.Join(dir, "ada")
	for _, args := range [][]string{
		{"client", "register", "--server", ready.Invite, "--handle", "ada", "--profile", ada},
		{"client", "send", "--profile", ada, "--to", "dice", "roll"},
	} {
		if b, err := exec.Command(relay, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, b)
		}
	}
	b, err := exec.Command(relay, "client", "listen", "--profile", ada, "--count", "1", "--timeout", "30s", "--json").Output()
	if err != nil || !strings.Contains(string(b), `"text":"you rolled `) {
		t.Errorf("%v: %s", err, b)
	}
}
