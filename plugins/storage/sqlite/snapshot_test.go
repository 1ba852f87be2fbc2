package sqlite

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// brokenCopy is a file system on which nothing can be written below a snapshot.
type brokenCopy struct {
	vfs.FS
	on atomic.Bool
}

func (f *brokenCopy) Unwrap() vfs.FS { return f.FS }

func (f *brokenCopy) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if f.on.Load() && strings.Contains(name, "/snap/") {
		return nil, &os.PathError{Op: "create", Path: name, Err: syscall.ENOSPC}
	}
	return f.FS.Create(name, c)
}

// TestSnapshotFails: a disk that has no room for a snapshot fails that alone. Nothing of it
// is left, what is stored can be read and written, and the witness is still the store's own.
func TestSnapshotFails(t *testing.T) {
	dir := t.TempDir()
	fs := &brokenCopy{FS: vfs.Default}
	full := false
	p := define(options{fs: fs, free: func(string) (uint64, error) {
		if full {
			return 64<<20 + 1, nil
		}
		return 1 << 40, nil
	}})
	open := func() storage.Store {
		t.Helper()
		s, err := storage.Open(t.Context(), p, sdk.NewEnv(sdk.EnvOptions{Log: slog.New(slog.DiscardHandler), State: dir}), map[string]any{"path": "part"})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	for n := range 3 {
		if _, err := appendRow(t, s, n); err != nil {
			t.Fatal(err)
		}
	}
	absent := func(what string) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(dir, "snap")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: left behind, %v", what, err)
		}
	}
	fs.on.Store(true)
	if err := s.Snapshots.Snapshot(t.Context(), "snap"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("without room: %v", err)
	}
	absent("without room")
	fs.on.Store(false)
	full = true
	if err := s.Snapshots.Snapshot(t.Context(), "snap"); err == nil || !strings.Contains(err.Error(), "too full: 64MiB free") {
		t.Errorf("at the reserve: %v", err)
	}
	absent("at the reserve")
	full = false
	if _, err := appendRow(t, s, 3); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if err := s.Snapshots.Snapshot(t.Context(), "snap"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The configured path is part of the snapshot, and so is a witness of its own.
	for _, name := range []string{"relay.db", "queues.manifests"} {
		if _, err := os.Stat(filepath.Join(dir, "snap", "part", name)); err != nil {
			t.Error(err)
		}
	}
	s = open()
	if got := rowsIn(t, s); len(got) != 4 {
		t.Errorf("%q after opening again", got)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "snap")
	s = open()
	if got := rowsIn(t, s); len(got) != 4 {
		t.Errorf("%q in the snapshot", got)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestSnapshotOfBothEngines: messages are in it wherever they are kept.
func TestSnapshotOfBothEngines(t *testing.T) {
	for _, engine := range engines {
		dir := t.TempDir()
		s, err := opener(engine)(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 5 {
			if _, err := appendRow(t, s, n); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(s.Snapshots.Snapshot(t.Context(), "snap"), s.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
		if s, err = opener(engine)(t.Context(), filepath.Join(dir, "snap")); err != nil {
			t.Fatal(err)
		}
		if got := rowsIn(t, s); len(got) != 5 {
			t.Errorf("%s: %q", engine, got)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFolderIsNoPattern: manifests are found in a folder of whatever name.
func TestFolderIsNoPattern(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x[")
	queues := filepath.Join(dir, "queues")
	if err := os.MkdirAll(queues, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(queues, "MANIFEST-000001"), []byte("state"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := attest(queues); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(queues + ".manifests"); err != nil || !strings.HasPrefix(string(b), "MANIFEST-000001 5 ") {
		t.Errorf("%q %v", b, err)
	}
	if err := whole(dir); !errors.Is(err, sdk.Corrupt) {
		t.Errorf("queues without a database: %v", err)
	}
	if err := whole(t.TempDir()); err != nil {
		t.Errorf("a new folder: %v", err)
	}
}
