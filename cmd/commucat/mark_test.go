package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/sqlite"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// unmark takes the mark out of a stopped relay's storage, as in one that an older version
// filled, and with it what keep does not want kept.
func unmark(t *testing.T, dir string, keep func(kind string) bool) {
	t.Helper()
	s, err := storage.Open(t.Context(), sqlite.Plugin(), sdk.NewEnv(sdk.EnvOptions{State: filepath.Join(dir, "plugins", "storage-sqlite")}), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	kinds, err := s.Inventory.Kinds(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	gone := 0
	for _, kind := range kinds {
		if kind != "relay-storage" && keep(kind) {
			continue
		}
		recs, err := s.Directory.List(t.Context(), time.Now(), storage.Range{Kind: kind, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range recs {
			if err := s.Directory.Commit(t.Context(), time.Now(), []storage.Write{{Key: r.Key, Expect: r.Version}}); err != nil {
				t.Fatal(err)
			}
			gone++
		}
	}
	if gone == 0 {
		t.Fatal("there is no mark")
	}
}

// A storage without a mark is this relay's if it has accounts: one that was imported into,
// or went back to before there were marks. One without is not what the relay was used with.
func TestStorageOfBefore(t *testing.T) {
	dir := dataFolder(t, wide)
	p := relay(t, dir)
	if code, _, notes := commucat(t, "client", "register", "--server", p.Invite, "--handle", "alice", "--profile", filepath.Join(t.TempDir(), "alice")); code != exitOK {
		t.Fatal(notes)
	}
	end := func() {
		t.Helper()
		if code, err := p.stop(); err != nil || code != exitOK {
			t.Fatalf("ended with %d, %v", code, err)
		}
	}
	end()
	unmark(t, dir, func(string) bool { return true })
	p = relay(t, dir)
	end()
	unmark(t, dir, func(string) bool { return false })
	p = spawn(t, dir, "--listen", "127.0.0.1:0")
	if err := p.ready(); err == nil || !strings.Contains(p.said(), "has no accounts, but this relay has been used") {
		t.Fatalf("%v: %s", err, p.said())
	}
}
