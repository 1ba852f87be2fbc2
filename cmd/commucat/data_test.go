package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDataFolder: what is wrong with a data folder is said in one line, and
// nothing in it is changed.
func TestDataFolder(t *testing.T) {
	busy := dataFolder(t, "")
	running := relay(t, busy)
	defer running.terminate(t)

	folder := func(state string) string {
		dir := dataFolder(t, "")
		if err := os.WriteFile(filepath.Join(dir, "relay.json"), []byte(state), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	// without is the folder of a relay that has run, and then lost something.
	without := func(name string) string {
		dir := dataFolder(t, "")
		if code := relay(t, dir).terminate(t); code != exitOK {
			t.Fatal("the relay ended with", code)
		}
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, dir, want string }{
		{"used by a second relay", busy, "is used by another relay (process "},
		{"below a file", filepath.Join(plain, "data"), "cannot be made: not a directory"},
		{"of a newer version", folder(`{"version": 99, "node": "00", "connect_path": "/a", "cookie": "b"}`), "newer version (layout 99, this one knows 1)"},
		{"of a newer form", folder(`{"version": 99, "cookie": 7}`), "newer version (layout 99, this one knows 1)"},
		{"without what links name", without("relay.json"), "relay.json is missing beside keys; restore it"},
		{"without keys", without("keys"), "is missing or empty; restore it from a backup (new keys would lock out every device)"},
		{"without accounts", without("plugins/storage-sqlite/relay.db"), "missing or empty beside the queues; restore the folder"},
		{"without messages", without("plugins/storage-sqlite/queues"), "restore the folder from a backup"},
		{"damaged", folder(`{"version": 1`), "is damaged; restore it from a backup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, _ := os.ReadFile(filepath.Join(c.dir, "relay.json"))
			code, stdout, stderr := commucat(t, "serve", "--data", c.dir, "--listen", "127.0.0.1:0")
			if code != exitFailed || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.want) {
				t.Errorf("code %d, stdout %q, stderr %q; want one line with %q", code, stdout, stderr, c.want)
			}
			if _, err := os.Stat(filepath.Join(c.dir, "keys", "root")); err == nil && strings.Contains(c.name, "without keys") {
				t.Error("new keys were made")
			}
			if after, _ := os.ReadFile(filepath.Join(c.dir, "relay.json")); string(after) != string(before) {
				t.Errorf("relay.json was changed to %s", after)
			}
		})
	}
}
