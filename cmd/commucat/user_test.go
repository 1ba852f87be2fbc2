package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestAnotherUser: who may not operate a relay is told so, and not that none runs.
func TestAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	dir := dataFolder(t, wide)
	program := filepath.Join(t.TempDir(), "commucat")
	found, err := exec.LookPath("commucat")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(found)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.WriteFile(program, b, 0o755), //nolint:gosec // a program for others to run
		os.Chmod(filepath.Dir(dir), 0o711), os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "commucat.toml"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	relay(t, dir)
	nobody := func(args ...string) (int, string, string) {
		var out, notes strings.Builder
		cmd := exec.Command(program, args...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = "/", &out, &notes
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if err := cmd.Run(); cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), out.String(), notes.String()
	}
	if code, stdout, notes := nobody("user", "list", "--data", dir); code != exitFailed || stdout != "" || !strings.Contains(notes, "is for the relay's own user and root: "+dir) {
		t.Errorf("%d %q %q", code, stdout, notes)
	}
	code, report, _ := nobody("doctor", "--data", dir)
	if code != exitFailed || !strings.Contains(report, "not known whether it runs") || strings.Contains(report, "not running") || strings.Contains(report, "in use by another program") {
		t.Errorf("%d %s", code, report)
	}
}
