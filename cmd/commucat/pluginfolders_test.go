package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/commucat/commucat/core/pluginhost"
)

// TestLoadFolders: a relay of root that has made its folder without any plugin opens
// it for the first one's user, which comes by a reload. What is not the relay's own stays
// as it is, and doctor says what then does not run.
func TestLoadFolders(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives plugins users of their own")
	}
	if raceDetector {
		t.Skip("a plugin under the race detector needs more memory than it is allowed")
	}
	pluginFolder(t)
	parent := t.TempDir()
	dir := filepath.Join(parent, "data")
	srv := relay(t, dir)
	mode := func(names ...string) string {
		t.Helper()
		info, err := os.Stat(filepath.Join(append([]string{dir}, names...)...))
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm().String()
	}
	run := func(want int, args ...string) string {
		t.Helper()
		code, out, notes := commucat(t, append(args, "--data", dir)...)
		if code != want {
			t.Fatalf("%q: %d %s %s", args, code, out, notes)
		}
		return out
	}
	phase := func(want pluginhost.Phase) {
		t.Helper()
		soon(t, string(want), func() bool { return srv.plugins(t)["prisoner"].State == want })
	}
	if m, p := mode(), mode("plugins"); m != "-rwx------" || p != "-rwx------" {
		t.Errorf("before: %s %s", m, p)
	}
	if err := os.Chmod(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	run(exitOK, "transport", "enable", "prisoner", "--set", "listen=127.0.0.1:0")
	phase(pluginhost.Parked)
	if why := srv.plugins(t)["prisoner"].Error; !strings.Contains(why, "run 'chmod o+x "+parent+"'") {
		t.Errorf("parked: %s", why)
	}
	report := run(exitFailed, "doctor")
	if !strings.Contains(report, "1 wrong") || !strings.Contains(report, "transport prisoner") || !strings.Contains(report, "run 'chmod o+x "+parent+"'") {
		t.Errorf("doctor: %s", report)
	}
	if m, p, keys := mode(), mode("plugins"), mode("keys"); m != "-rwx--x--x" || p != "-rwx--x--x" || keys != "-rwx------" {
		t.Errorf("after: %s %s %s", m, p, keys)
	}
	for _, name := range []string{"relay.json", "lock", "commucat.toml"} {
		if m := mode(name); m != "-rw-------" {
			t.Errorf("%s has %s", name, m)
		}
	}
	for d := parent; d != os.TempDir() && len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	run(exitOK, "plugin", "upgrade", "prisoner")
	phase(pluginhost.Running)
	if report := run(exitOK, "doctor"); !strings.Contains(report, "its plugin is running") {
		t.Errorf("doctor: %s", report)
	}
	if m := mode("plugins", "transport-prisoner"); m != "-rwx------" {
		t.Errorf("the plugin's folder has %s", m)
	}
}
