package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReload: SIGHUP takes over what can be, names what cannot, and a file with a
// mistake changes nothing.
func TestReload(t *testing.T) {
	talkative := strings.Replace(wide, `level = "warn"`, `level = "info"`, 1)
	dir := dataFolder(t, talkative)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "commucat.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	srv := relay(t, dir)
	invite := srv.invitation(t, 5, time.Hour)
	hup := func(text string) {
		t.Helper()
		if err := srv.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if !srv.waitFor(text, 20*time.Second) {
			t.Fatalf("no %q on standard error: %s", text, srv.said())
		}
	}
	register := func(handle string) int {
		t.Helper()
		code, _, notes := commucat(t, "client", "register", "--server", invite, "--handle", handle, "--profile", filepath.Join(t.TempDir(), handle))
		t.Logf("register %s: %d %s", handle, code, notes)
		return code
	}
	if code := register("alice"); code != exitOK {
		t.Fatalf("before: %d", code)
	}
	write("[relay]\nregistration = \"closd\"\n")
	hup("the configuration stays as it was")
	if code := register("bob"); code != exitOK {
		t.Errorf("after a broken file: %d", code)
	}
	write(talkative + "[relay]\nregistration = \"closed\"\n[noise]\nrotate = \"20d\"\n")
	hup("configuration reloaded")
	if !strings.Contains(srv.said(), "key=noise.rotate") {
		t.Errorf("what waits for a restart was not named: %s", srv.said())
	}
	if code := register("carol"); code != exitRefused {
		t.Errorf("after closing: %d", code)
	}
	if code := srv.terminate(t); code != exitOK {
		t.Errorf("ended with %d", code)
	}
}

// TestBudgetReloadWhilePluginHangs: a plugin that hangs while it is started anew keeps no
// certificate and no switch waiting, nor the relay's end.
func TestBudgetReloadWhilePluginHangs(t *testing.T) {
	if raceDetector {
		t.Skip("a plugin under the race detector needs more memory than it is allowed")
	}
	pluginFolder(t)
	text := strings.Replace(wide, `level = "warn"`, `level = "info"`, 1)
	door := "[transport.door]\nplugin = \"plain\"\n"
	dir := dataFolder(t, text+door)
	srv := relay(t, dir)
	said := func(what string) {
		t.Helper()
		if !srv.waitFor(what, 20*time.Second) {
			t.Fatalf("no %q: %s", what, srv.said())
		}
	}
	hup := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "commucat.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := srv.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	said("transport ready")
	hup(text + door + "hang = true\n")
	said("the plugin hangs")
	certs := strings.Count(srv.said(), "tls certificate reloaded")
	hup(text + door + "hang = true\n[relay]\nregistration = \"closed\"\n")
	said("relay.registration")
	if strings.Count(srv.said(), "tls certificate reloaded") == certs {
		t.Error("the certificate was not read")
	}
	if strings.Contains(srv.said(), "does not work as configured") {
		t.Error("the plugin hung no more: this test says nothing")
	}
	if code := srv.terminate(t); code != exitOK {
		t.Errorf("ended with %d: %s", code, srv.said())
	}
}
