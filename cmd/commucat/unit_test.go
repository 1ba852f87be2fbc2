package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bounding are the capabilities that a unit file leaves.
func bounding(t *testing.T, unit string) []string {
	t.Helper()
	for line := range strings.Lines(unit) {
		if value, ok := strings.CutPrefix(line, "CapabilityBoundingSet="); ok {
			return strings.Fields(value)
		}
	}
	t.Fatalf("no bounding set in\n%s", unit)
	return nil
}

// TestUnitOfAnybody: who is not root has nothing but a port to ask for.
func TestUnitOfAnybody(t *testing.T) {
	if got := bounding(t, unitFile("/usr/bin/commucat", "/srv/relay", "relay", false)); len(got) != 1 || got[0] != "CAP_NET_BIND_SERVICE" {
		t.Error(got)
	}
}

// TestBudgetUnitOfRoot runs a relay with no more than the unit file of root leaves it: its
// plugins start, are replaced and end.
func TestBudgetUnitOfRoot(t *testing.T) {
	if raceDetector {
		t.Skip("a plugin under the race detector needs more memory than it is allowed")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can take capabilities away, and gives plugins users")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("this machine has no setpriv")
	}
	pluginFolder(t)
	dir := dataFolder(t, wide+"[transport.door]\nplugin = \"plain\"\n")
	set := "-all"
	for _, c := range bounding(t, unitFile("commucat", dir, "root", true)) {
		set += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
	}
	said, err := os.Create(filepath.Join(t.TempDir(), "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command(setpriv, "--no-new-privs", "--bounding-set="+set, "--inh-caps=-all", "--ambient-caps=-all",
		"commucat", "serve", "--data", dir, "--listen", "127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	})
	until := func(state string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			_, out, notes := commucat(t, "plugin", "list", "--json", "--data", dir)
			if strings.Contains(out, `"state":"`+state+`"`) && strings.Contains(out, `"name":"door"`) == (state == "running") {
				return
			}
			if time.Now().After(end) {
				b, _ := os.ReadFile(said.Name())
				t.Fatalf("not %s in time: %s %s\n%s", state, out, notes, b)
			}
		}
	}
	until("running")
	if code, _, notes := commucat(t, "plugin", "upgrade", "door", "--data", dir); code != exitOK {
		t.Errorf("upgrade: %d %s", code, notes)
	}
	until("running")
	if code, _, notes := commucat(t, "transport", "disable", "door", "--data", dir); code != exitOK {
		t.Errorf("disable: %d %s", code, notes)
	}
	until("stopped")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it does not end")
	}
}
