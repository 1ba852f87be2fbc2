//go:build unix

package journal

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// TestFailedWriteIsTakenBack replaces the growing file by one that cannot be
// written, and expects that the same records go through afterwards.
func TestFailedWriteIsTakenBack(t *testing.T) {
	all := some(t, 4)
	dir := t.TempDir()
	j, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append(all[:1]); err != nil {
		t.Fatal(err)
	}
	good := j.active
	bad, err := os.Open(j.segments[0].path) // read only: write and truncate both fail
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	j.active = bad
	for range 2 {
		if err := j.Append(all[1:3]); !errors.Is(err, sdk.Unavailable) {
			t.Fatal(err)
		}
	}
	if j.Head().Seq != 1 {
		t.Fatal(j.Head().Seq)
	}
	j.active = good
	if _, err := good.WriteAt([]byte("half of a line"), j.segments[0].size); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(all[1:]); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(Options{Dir: dir}); err != nil || !j.Head().Equal(all[3]) {
		t.Fatal(err)
	}
	defer j.Close()
	if got, err := j.Read(0, 10); err != nil || len(got) != 4 {
		t.Fatal(len(got), err)
	}
}

// some makes a chain of records.
func some(t *testing.T, n int) []ledger.Record {
	t.Helper()
	var all []ledger.Record
	var prev ledger.Record
	for range n {
		r, err := ledger.Next(prev, time.Unix(1, 0), [32]byte{}, []byte(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		all, prev = append(all, r), r
	}
	return all
}

// TestCopyDelaysNoAppend: the growing file is read through a pipe that nobody fills, so
// that the copy stands still, and records are appended, and others trimmed, meanwhile.
func TestCopyDelaysNoAppend(t *testing.T) {
	all := some(t, 40)
	dir, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	j, err := Open(Options{Dir: dir, Rotate: sdk.KiB})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for i := range 10 {
		if err := j.Append(all[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	last := j.segments[len(j.segments)-1]
	content, err := os.ReadFile(last.path)
	if err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(t.TempDir(), filepath.Base(last.path))
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	path := last.path
	last.path = pipe
	copied := make(chan error, 1)
	go func() { copied <- j.Copy(to) }()
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits until the copy reads
	if err != nil {
		t.Fatal(err)
	}
	appended := make(chan error, 1)
	go func() {
		for i := 10; i < len(all); i++ {
			if err := j.Append(all[i : i+1]); err != nil {
				appended <- err
				return
			}
		}
		appended <- j.Trim(9)
	}()
	select {
	case err := <-appended:
		if err != nil || j.First() != 1 {
			t.Errorf("%v; the first record is %d", err, j.First())
		}
	case <-time.After(30 * time.Second):
		t.Error("appending waits for the copy")
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), <-copied); err != nil {
		t.Fatal(err)
	}
	j.mu.Lock()
	last.path = path
	j.mu.Unlock()
	c, err := Open(Options{Dir: to})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := c.Read(0, 100); err != nil || len(got) != 10 || !got[9].Equal(all[9]) {
		t.Errorf("the copy has %d records, %v", len(got), err)
	}
	if err := j.Trim(9); err != nil || j.First() == 1 {
		t.Errorf("after the copy: %v; the first record is %d", err, j.First())
	}
}

// TestTrimKeepsTheEndOfTheChain: a file that was begun and could not be written is no
// reason to remove the one with the newest record, and a file that could not be removed
// is taken.
func TestTrimKeepsTheEndOfTheChain(t *testing.T) {
	all := some(t, 12)
	dir := t.TempDir()
	o := Options{Dir: dir, Rotate: sdk.KiB, Partial: true}
	j, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append(all[:10]); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, segmentName(11)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j.mu.Lock()
	err = j.rotate(11) // as an Append does that is then refused by the disk
	j.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Trim(10), j.Close()); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(o); err != nil || j.Head().Seq != 10 {
		t.Fatal(j.Head().Seq, err)
	}
	defer j.Close()
	if err := j.Append(all[10:]); err != nil {
		t.Fatal(err)
	}
}
