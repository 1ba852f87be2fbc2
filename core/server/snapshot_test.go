package server

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/core/backup"
	"github.com/commucat/commucat/core/config"
)

// TestSweepSnapshots: what a relay has made goes, in a folder of whatever name; what an
// operator has put there, what is another plugin's and what lies behind a link stay.
func TestSweepSnapshots(t *testing.T) {
	dir, outside, old := filepath.Join(t.TempDir(), "x["), t.TempDir(), backup.SnapshotName()
	d := &data{dir: dir}
	gone := []string{d.path(old), d.path(stateDir, "storage-sqlite", old)}
	stays := []string{
		d.path("snapshot-2026-11"), d.path(stateDir, "storage-sqlite", "snapshot-mine"), d.path(stateDir, "transport-x", old), filepath.Join(outside, old),
	}
	for _, f := range append(gone, stays...) {
		if err := os.MkdirAll(filepath.Join(f, "keys"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, d.path(stateDir, "storage-link")); err != nil {
		t.Fatal(err)
	}
	if err := d.sweepSnapshots(); err != nil {
		t.Fatal(err)
	}
	for _, f := range gone {
		if _, err := os.Lstat(f); err == nil {
			t.Errorf("%s stayed", f)
		}
	}
	for _, f := range stays {
		if _, err := os.Lstat(f); err != nil {
			t.Error(err)
		}
	}
}

// slowSnapshots is a storage whose copy takes its time.
type slowSnapshots time.Duration

func (s slowSnapshots) Snapshot(ctx context.Context, _ string) error {
	select {
	case <-time.After(time.Duration(s)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestSnapshotOfALargeStorage: who makes the archive has a minute from when there is all that
// it is made of, however long the storage took; and is told folders that hold in any
// working folder.
func TestSnapshotOfALargeStorage(t *testing.T) {
	t.Chdir(t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		if err := os.Mkdir("data", 0o700); err != nil {
			t.Fatal(err)
		}
		r, err := audit.Open(t.Context(), audit.Options{Dir: filepath.Join("data", auditDir)})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := r.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		s := &Server{log: slog.New(slog.DiscardHandler), cfg: &config.Config{}, data: &data{dir: "data"}, audit: r}
		s.store.Snapshots = slowSnapshots(10 * time.Minute)
		for _, after := range []time.Duration{50 * time.Second, 70 * time.Second} {
			h, err := s.snapshot(t.Context(), string(backup.WithoutKeys))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range h.Folders {
				if !filepath.IsAbs(f.Dir) {
					t.Errorf("%s is at %s", f.Name, f.Dir)
				}
			}
			if !filepath.IsAbs(h.Stage) {
				t.Errorf("the stage is %s", h.Stage)
			}
			time.Sleep(after)
			if err := h.Release(); (err != nil) != (after > longestHold) {
				t.Errorf("after %v: %v", after, err)
			}
			h.End()
			if _, err := os.Lstat(filepath.Dir(h.Stage)); err == nil {
				t.Error("it stayed")
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := s.snapshot(ctx, string(backup.WithoutKeys)); err == nil {
			t.Error("who asked has gone, and the storage was copied all the same")
		}
	})
}
