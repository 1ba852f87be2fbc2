package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAuditDisk: the audit folder's own disk is full. Accounts and messages go on, readiness
// and a metric name what waits, and every event is in the ledger once there is room.
func TestAuditDisk(t *testing.T) {
	dir := dataFolder(t, wide)
	disk := filepath.Join(dir, "audit")
	if err := os.MkdirAll(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("a small disk cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	srv := relay(t, dir)
	const waiting = `commucat_ledger_behind_records{ledger="spool"}`
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not in time: %s\n%s", what, srv.said())
			}
		}
	}
	until("the beginning is recorded", func() bool { return metric(t, dir, `commucat_ledger_behind_records{ledger="file"}`) == 0 })
	ballast := filepath.Join(disk, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	_ = f.Close() // the disk is full

	link := func() {
		t.Helper()
		if code, _, notes := commucat(t, "link", "create", "--data", dir); code != exitOK {
			t.Fatal(code, notes)
		}
	}
	until("the disk is full", func() bool { link(); return metric(t, dir, waiting) > 0 })
	if said := admin(t, dir, "/readyz") + admin(t, dir, "/v1/status"); !strings.Contains(said, "503") ||
		!strings.Contains(said, "the audit spool takes no records") || !strings.Contains(said, "no space left on device") {
		t.Error("ready: ", said)
	}
	alice, bob := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	for i, profile := range []string{alice, bob} {
		if code, _, notes := commucat(t, "client", "register", "--server", srv.Invite, "--handle", fmt.Sprint("user", i), "--profile", profile); code != exitOK {
			t.Fatalf("register: %d %s", code, notes)
		}
	}
	if code, _, notes := commucat(t, "client", "send", "--profile", alice, "--to", "user1", "text"); code != exitOK {
		t.Fatalf("send: %d %s", code, notes)
	}
	if metric(t, dir, waiting) == 0 || metric(t, dir, "commucat_audit_failures_total") > 0 {
		t.Error(admin(t, dir, "/metrics"))
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	until("there is room", func() bool { return metric(t, dir, waiting) == 0 })
	until("readiness", func() bool { return strings.Contains(admin(t, dir, "/readyz"), "200 OK") })
	if code := srv.terminate(t); code != exitOK {
		t.Fatalf("the relay ended with %d: %s", code, srv.said())
	}
	if code, out, notes := commucat(t, "audit", "verify", "--data", dir); code != exitOK || !strings.Contains(out, "unbroken") {
		t.Error(code, out, notes)
	}
	files, err := filepath.Glob(filepath.Join(dir, "plugins", "ledger-file", "records", "*.jsonl"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if text := read(t, files[0]); strings.Count(text, `"user.registered"`) != 2 || strings.Contains(text, "audit.lost") {
		t.Error(text)
	}
}
