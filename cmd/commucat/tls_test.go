package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPublicCertificate: a relay that began with a certificate of its own gets another
// one. Made for the same key, nobody notices; for another key, and when the key is lost,
// the operator is told that devices stay away, and the devices say why.
func TestPublicCertificate(t *testing.T) {
	dir, profile := dataFolder(t, wide), t.TempDir()+"/alice"
	p := relay(t, dir)
	listen := p.address()
	if code, _, notes := commucat(t, "client", "register", "--server", p.Invite, "--handle", "alice", "--profile", profile); code != exitOK {
		t.Fatal(code, notes)
	}
	openssl := func(args ...string) {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v %s", args[0], err, out)
		}
	}
	// again starts the relay with the given [tls] and lets the device send.
	again := func(tls string) (relayNotes string, code int, notes string) {
		t.Helper()
		p.terminate(t)
		if err := os.WriteFile(filepath.Join(dir, "commucat.toml"), []byte(wide+tls), 0o600); err != nil {
			t.Fatal(err)
		}
		p = spawn(t, dir, "--listen", listen)
		if err := p.ready(); err != nil {
			t.Fatal(err)
		}
		code, _, notes = commucat(t, "client", "send", "--profile", profile, "--to", "alice", "--timeout", "2s", "hello")
		return p.said(), code, notes
	}

	openssl("req", "-new", "-key", "keys/tls.key", "-subj", "/", "-addext", "subjectAltName=DNS:localhost", "-out", "relay.csr")
	openssl("x509", "-req", "-in", "relay.csr", "-signkey", "keys/tls.key", "-days", "90", "-copy_extensions", "copy", "-out", "public.crt")
	said, code, notes := again("[tls]\ncert = \"public.crt\"\nkey = \"keys/tls.key\"\n")
	if code != exitOK || said != "" {
		t.Errorf("the same key: %d %s, relay %q", code, notes, said)
	}

	openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "other.key", "-out", "other.crt",
		"-days", "90", "-subj", "/", "-addext", "subjectAltName=DNS:localhost")
	if err := os.Chmod(filepath.Join(dir, "other.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	said, code, notes = again("[tls]\ncert = \"other.crt\"\nkey = \"other.key\"\n")
	if code != exitTimeout || !strings.Contains(notes, "TLS key is not the pinned one") || !strings.Contains(said, "cannot connect; 'commucat doctor' says what to do") {
		t.Errorf("another key: %d %s, relay %q", code, notes, said)
	}
	if _, report, _ := commucat(t, "doctor", "--data", dir); !strings.Contains(report, "openssl req -new -key "+dir+"/keys/tls.key") {
		t.Errorf("doctor: %s", report)
	}

	for _, name := range []string{"tls.key", "tls.crt"} {
		if err := os.Remove(filepath.Join(dir, "keys", name)); err != nil {
			t.Fatal(err)
		}
	}
	said, code, notes = again("")
	if code != exitTimeout || !strings.Contains(notes, "TLS key is not the pinned one") || !strings.Contains(said, "certificate gets a new key") {
		t.Errorf("no key: %d %s, relay %q", code, notes, said)
	}
}
