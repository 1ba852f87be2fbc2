package postgres_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// TestLogDiskFull: the write-ahead log lies on a disk of its own, which is full. The
// server panics at each write and starts again: while it does, it answers what is read,
// and the store is not ready all the same.
func TestLogDiskFull(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "wal")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m,mode=777"); err != nil {
		t.Skipf("a file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := pgserver.Start(t, "min_wal_size = 32MB", "max_wal_size = 32MB", "wal_keep_size = 0", "wal_recycle = off")
	s.MoveLog(dir)
	st := openPair(t, s)
	putAlways(t, st, "q", 1)
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	big := storage.Append{Queue: "big", Payload: make([]byte, 2<<20), Expires: time.Now().Add(time.Hour)}
	refused := 0
	waitFor(t, "the log is full", func() bool {
		big.ID[0]++
		_, err := st.Queues.Append(t.Context(), time.Now(), storage.Batch{Rows: []storage.Append{big}})
		if err == nil {
			return false
		}
		if !errors.Is(err, sdk.Unavailable) {
			t.Fatal(err)
		}
		refused++
		if err := st.Ready(t.Context()); !errors.Is(err, sdk.Unavailable) {
			t.Fatalf("ready after a write was refused: %v", err)
		}
		return refused == 5
	})
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	s.Kill() // it may have given up
	s.Run()
	waitFor(t, "it is ready again", func() bool { return st.Ready(t.Context()) == nil })
	putAlways(t, st, "q", 2)
}
