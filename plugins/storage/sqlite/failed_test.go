package sqlite

import (
	"errors"
	"log/slog"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/commucat/commucat/sdk/storage"
)

// refusing is an engine whose next write fails, if told so.
type refusing struct {
	engine
	next bool
}

func (r *refusing) write(c *change, sync bool) error {
	if r.next {
		r.next = false
		return unavailable("write", errors.New("the disk is full"))
	}
	return r.engine.write(c, sync)
}

// failing is a store whose next write can be made to fail.
type failing struct {
	*queues
	t      *testing.T
	engine *refusing
}

func newFailing(t *testing.T) *failing {
	t.Helper()
	p, err := openPebble(filepath.Join(t.TempDir(), "queues"), vfs.Default, 1<<20, slog.New(slog.DiscardHandler), func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.close() })
	r := &refusing{engine: p}
	x, err := newIndex(r, 1<<20, time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	return &failing{&queues{x, func(int) error { return nil }}, t, r}
}

// add appends rows that live for an hour.
func (f *failing) add(queue string, now time.Time, ids ...int) (at []uint64) {
	f.t.Helper()
	for _, id := range ids {
		r := testRow(queue, id)
		r.Expires = now.Add(time.Hour)
		out, err := f.Append(f.t.Context(), now, storage.Batch{Rows: []storage.Append{r}})
		if err != nil {
			f.t.Fatal(err)
		}
		at = append(at, out[0].Position)
	}
	return at
}

// left says that the store holds n rows of a queue, and that the index knows that.
func (f *failing) left(queue string, n int, when string) {
	f.t.Helper()
	stored := 0
	if err := f.engine.scan(queue, func(row) { stored++ }); err != nil {
		f.t.Fatal(err)
	}
	d, err := f.Depths(f.t.Context(), []string{queue})
	if err != nil {
		f.t.Fatal(err)
	}
	if stored != n || d[0].Messages != uint64(n) {
		f.t.Errorf("%s: the store holds %d rows, the index %d, want %d", when, stored, d[0].Messages, n)
	}
}

// TestFailedDeletion: whatever deletion fails, the index knows of the rows that are
// still there, and the same deletion repeated takes them.
func TestFailedDeletion(t *testing.T) {
	start := time.Unix(1e9, 0)
	later := start.Add(5 * time.Hour) // the bucket of what has expired is past
	purge := func(f *failing, _ []uint64) error {
		_, err := f.Purge(f.t.Context(), later, 1000)
		return err
	}
	done := func(d storage.Done, more ...storage.Done) func(*failing, []uint64) error {
		return func(f *failing, at []uint64) error {
			d := d
			d.Queue = "q"
			if d.Ranges != nil {
				d.Ranges = [][2]uint64{{at[1], at[1]}}
			} else {
				d.Cursor = at[1]
			}
			return f.Done(f.t.Context(), append([]storage.Done{d}, more...))
		}
	}
	for _, c := range []struct {
		name    string
		evicted bool // the queue is not in memory
		call    func(*failing, []uint64) error
		left    int
	}{
		{"done by range", false, done(storage.Done{Ranges: [][2]uint64{{}}}), 2},
		{"done by cursor", false, done(storage.Done{}), 1},
		{"done, not in memory", true, done(storage.Done{}), 1},
		{"done, with one that is not in memory", false, done(storage.Done{}, storage.Done{Queue: "other", Cursor: 1}), 1},
		{"purge in memory", false, purge, 0},
		{"purge by note", true, purge, 0},
		{"drop", false, func(f *failing, _ []uint64) error { _, err := f.Drop(f.t.Context(), "q"); return err }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFailing(t)
			at := f.add("q", start, 1, 2, 3)
			if c.evicted {
				f.reset()
			}
			f.engine.next = true
			if err := c.call(f, at); err == nil {
				t.Fatal("the call says nothing of the failed write")
			}
			f.left("q", 3, "after the failure")
			if err := c.call(f, at); err != nil {
				t.Fatal(err)
			}
			f.left("q", c.left, "after the same call again")
			f.add("q", later, 4)
			f.left("q", c.left+1, "after another row")
		})
	}
}

// TestUndoneDeletions: a deletion that was still on its way to the disk when that
// failed is undone by the reopening, and the index knows.
func TestUndoneDeletions(t *testing.T) {
	f := &faultFS{FS: vfs.Default}
	s := openTest(t, t.TempDir(), Config{Queues: "pebble"}, options{fs: f})
	const rows = 50 // a deletion longer than the append that fails: no part of it is good
	var last uint64
	for n := range rows {
		r, err := appendRow(t, s, n)
		if err != nil {
			t.Fatal(err)
		}
		last = r.Position
	}
	fault := error(syscall.ENOSPC)
	f.write.Store(&fault)
	if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: "q", Cursor: last - 1}}); err != nil {
		t.Fatal(err)
	}
	other := storage.Batch{Rows: []storage.Append{testRow("other", rows)}}
	if _, err := s.Queues.Append(t.Context(), time.Unix(1e9, 0), other); err == nil {
		t.Fatal("a row was accepted by a full disk")
	}
	f.write.Store(nil)
	recovered(t, s)
	if got := rowsIn(t, s); len(got) != rows {
		t.Fatalf("%d rows can be read, want %d: %v", len(got), rows, got)
	}
	d, err := s.Queues.Depths(t.Context(), []string{"q"})
	if err != nil || d[0].Messages != rows {
		t.Errorf("the index holds %d rows of %d (%v)", d[0].Messages, rows, err)
	}
}
