package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAuditVerify: a good chain, then a changed byte, a missing record, a cut end,
// and a folder without a relay, which must stay as it is.
func TestAuditVerify(t *testing.T) {
	dir := dataFolder(t, "")
	if code := relay(t, dir).terminate(t); code != 0 {
		t.Fatalf("the relay ended with %d", code)
	}
	files, err := filepath.Glob(filepath.Join(dir, "plugins", "ledger-file", "records", "*.jsonl"))
	if err != nil || len(files) != 1 {
		t.Fatalf("ledger files %v, %v", files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(good, []byte("\n"))
	if len(lines) < 5 {
		t.Fatalf("%d records", len(lines)-1)
	}
	changed := bytes.Replace(good, []byte("noise"), []byte("n0ise"), 1)
	without := append(bytes.Join(lines[:2], nil), bytes.Join(lines[3:], nil)...)
	cut := bytes.Join(lines[:len(lines)-2], nil)
	for _, c := range []struct {
		name    string
		content []byte
		code    int
		want    string
	}{
		{"good", good, exitOK, ""},
		{"one byte changed", changed, exitFailed, ".jsonl:"},
		{"a record removed", without, exitFailed, ".jsonl:3"},
		{"the end cut off", cut, exitFailed, "this ledger took record"},
		{"good again", good, exitOK, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(files[0], c.content, 0o600); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := commucat(t, "audit", "verify", "--data", dir)
			if code != c.code || !strings.Contains(stderr, c.want) || (code == exitOK) != strings.Contains(stdout, "unbroken") {
				t.Errorf("code %d, stdout %q, stderr %q; want %d with %q", code, stdout, stderr, c.code, c.want)
			}
		})
	}
	empty := filepath.Join(t.TempDir(), "typo")
	code, _, stderr := commucat(t, "audit", "verify", "--data", empty)
	if code != exitFailed || !strings.Contains(stderr, "there is no relay in") {
		t.Errorf("code %d, stderr %q for a folder that does not exist", code, stderr)
	}
	if _, err := os.Stat(empty); err == nil {
		t.Error("verifying made the folder")
	}
}
