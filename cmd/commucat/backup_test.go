package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBackup: a relay's folder and its keys are kept apart, restored on another place, and
// the relay there goes on where this one was: accounts, invitation, messages, ledger.
// Archives that were changed or cut anywhere are refused and leave nothing behind.
func TestBackup(t *testing.T) {
	dir := dataFolder(t, wide)
	srv := relay(t, dir)
	alice, bob := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	for handle, profile := range map[string]string{"alice": alice, "bob": bob} {
		if code, _, notes := commucat(t, "client", "register", "--server", srv.Invite, "--handle", handle, "--profile", profile); code != exitOK {
			t.Fatalf("register: %d %s", code, notes)
		}
	}
	if code, _, notes := commucat(t, "client", "send", "--profile", alice, "--to", "bob", "kept text"); code != exitOK {
		t.Fatalf("send: %d %s", code, notes)
	}
	out := t.TempDir()
	at := func(name string) string { return filepath.Join(out, name) }
	fails := func(code int, want string, args ...string) {
		t.Helper()
		got, stdout, notes := commucat(t, append([]string{"backup"}, args...)...)
		if got != code || !strings.Contains(notes, want) || stdout != "" {
			t.Errorf("%v: %d %q %q, want %d %q", args, got, stdout, notes, code, want)
		}
	}
	ok := func(args ...string) string { t.Helper(); return archive(t, args...) }
	write(t, at("public"), ok("key", at("private")))
	fails(exitFailed, "exists", "key", at("private"))
	fails(exitUsage, "--recipients", "create", at("x"))
	fails(exitUsage, "--keys", "create", at("x"), "--recipients", at("public"), "--keys", "all")
	fails(exitFailed, "holds no keys", "create", at("x"), "--recipients", at("private"), "--data", dir)
	address := srv.address()
	if code := srv.terminate(t); code != exitOK {
		t.Fatalf("the relay ended with %d", code)
	}
	fails(exitFailed, "there is no relay", "create", at("x"), "--recipients", at("public"), "--data", out)
	ok("create", at("data.age"), "--recipients", at("public"), "--data", dir)
	ok("create", at("keys.age"), "--recipients", at("public"), "--data", dir, "--keys", "only")
	ok("create", at("all.age"), "--recipients", at("public"), "--data", dir, "--keys", "with")
	fails(exitFailed, "exists", "create", at("data.age"), "--recipients", at("public"), "--data", dir)
	if _, err := os.Stat(at("x")); err == nil {
		t.Error("a failed backup left a file")
	}
	for _, f := range []string{"data.age", "keys.age", "all.age"} {
		if out := ok("verify", at(f), "--identity", at("private")); !strings.Contains(out, "whole") {
			t.Errorf("%s: %s", f, out)
		}
	}
	ok("key", at("other"))
	fails(exitFailed, "none of the identities", "verify", at("data.age"), "--identity", at("other"))
	fails(exitUsage, "--identity", "restore", at("data.age"), "--data", at("new"))

	fails(exitFailed, "there is no folder "+at("nope"), "create", at("nope/x.age"), "--recipients", at("public"), "--data", dir)
	if got := shortage(1<<20+1, 1<<20); got != "1025 KiB of files are to be kept, 1024 KiB are free" {
		t.Error(got)
	}
	if got := shortage(100<<20, 100<<20-1); got != "100 MiB of files are to be kept, 99 MiB are free" {
		t.Error(got)
	}

	// Changed and cut archives.
	good := []byte(read(t, at("data.age")))
	for name, bad := range map[string][]byte{
		"first byte": flipped(good, 0), "header": flipped(good, 60), "middle": flipped(good, len(good)/2), "last byte": flipped(good, len(good)-1),
		"cut": good[:len(good)-1], "half": good[:len(good)/2], "begun": good[:100], "longer": append(bytes.Clone(good), 'x'), "empty": nil,
	} {
		write(t, at("bad.age"), string(bad))
		fails(exitFailed, at("bad.age")+": ", "verify", at("bad.age"), "--identity", at("private"))
		if name == "middle" || name == "cut" { // no file has been read by then
			fails(exitFailed, "damaged or cut off in its first 64 KiB", "verify", at("bad.age"), "--identity", at("private"))
		}
		fails(exitFailed, "damaged", "restore", at("bad.age"), "--identity", at("private"), "--data", at("bad"))
		if left, err := filepath.Glob(at(".bad*")); len(left) > 0 || err != nil {
			t.Errorf("%s: %v left behind, %v", name, left, err)
		}
		if _, err := os.Stat(at("bad")); err == nil {
			t.Errorf("%s: a folder was made", name)
		}
	}

	// On another place, in two steps.
	fails(exitFailed, "is not empty", "restore", at("data.age"), "--identity", at("private"), "--data", dir)
	fails(exitFailed, "is not empty", "restore", at("keys.age"), "--identity", at("private"), "--data", dir)
	ok("restore", at("data.age"), "--identity", at("private"), "--data", at("new"))
	if code, _, notes := commucat(t, "serve", "--data", at("new"), "--listen", "127.0.0.1:0"); code != exitFailed || !strings.Contains(notes, "keys") {
		t.Errorf("without keys: %d %s", code, notes)
	}
	ok("restore", at("keys.age"), "--identity", at("private"), "--data", at("new"))
	srv = spawn(t, at("new"), "--listen", address)
	if err := srv.ready(); err != nil {
		t.Fatal(err)
	}
	if code, out, notes := commucat(t, "client", "listen", "--profile", bob, "--count", "1", "--timeout", "20s"); code != exitOK || !strings.Contains(out, "kept text") {
		t.Errorf("listen: %d %s %s", code, out, notes)
	}
	if code := srv.terminate(t); code != exitOK {
		t.Errorf("ended with %d: %s", code, srv.said())
	}
	if code, _, notes := commucat(t, "audit", "verify", "--data", at("new")); code != exitOK {
		t.Errorf("verify: %d %s", code, notes)
	}
	// All at once, into an empty folder that is there: the same files.
	if err := os.Mkdir(at("whole"), 0o700); err != nil {
		t.Fatal(err)
	}
	ok("restore", at("all.age"), "--identity", at("private"), "--data", at("whole"))
	for _, name := range []string{"relay.json", "commucat.toml", "keys/tls.key", "plugins/storage-sqlite/relay.db"} {
		if read(t, filepath.Join(dir, name)) != read(t, filepath.Join(at("whole"), name)) {
			t.Errorf("%s differs", name)
		}
	}
}

func flipped(b []byte, i int) []byte {
	out := bytes.Clone(b)
	out[i] ^= 1
	return out
}

// archive runs a command of the group backup, which must succeed, and gives what it printed.
func archive(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, notes := commucat(t, append([]string{"backup"}, args...)...)
	if code != exitOK {
		t.Fatalf("%v: %d %s", args, code, notes)
	}
	return stdout
}
