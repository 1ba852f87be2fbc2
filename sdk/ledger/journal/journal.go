package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// Policy says when Append's records have reached stable storage.
type Policy string

// The policies.
const (
	// Always: when Append returns.
	Always Policy = "always"
	// Interval: a second later at most.
	Interval Policy = "interval"
	// Never: when the system writes them.
	Never Policy = "never"
)

// interval is how late a record may be under Interval.
const interval = time.Second

// Options open a Journal.
type Options struct {
	// Dir is the folder; it is made (0700) if absent.
	Dir string
	// Rotate is the size after which a new file is begun; 0 means 64 MiB.
	Rotate sdk.Size
	// Sync is Always when empty.
	Sync Policy
	// Partial accepts a journal whose first record is not number 1: one whose
	// beginning has been trimmed. After says what the first record of an empty
	// journal must follow.
	Partial bool
	After   ledger.Record
	// Repaired is told what was cut off; may be nil.
	Repaired func(file string, bytes int64)
}

// Journal is an open folder of records. Its methods may be called concurrently.
type Journal struct {
	o    Options
	lock *os.File

	mu       sync.Mutex
	segments []*segment // in order; the last one grows
	chain    ledger.Chain
	first    uint64 // number of the first record held, 0 when empty
	active   *os.File
	dirty    bool
	timer    *time.Timer
	broken   error // a write failed and could not be taken back
	late     error // a sync between two calls failed
	copies   int   // Copy calls that read the files
	closed   bool
}

// Open reads and checks the folder. A broken chain is an error of kind Corrupt, a
// folder in use one of kind Conflict.
func Open(o Options) (*Journal, error) {
	if o.Rotate == 0 {
		o.Rotate = 64 * sdk.MiB
	}
	if o.Sync == "" {
		o.Sync = Always
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fail(sdk.Unavailable, err)
	}
	lock, err := lockFolder(filepath.Join(o.Dir, "lock"))
	if err != nil {
		return nil, err
	}
	j := &Journal{o: o, lock: lock}
	if err := j.load(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return j, nil
}

func fail(kind sdk.ErrorKind, err error) error {
	return &sdk.Error{Kind: kind, Op: "journal", Err: err}
}

var errClosed = &sdk.Error{Kind: sdk.Closed, Op: "journal", Text: "it has been closed"}

// Head is the last record, with number 0 when there is none (or After's, in a
// partial journal that is still empty).
func (j *Journal) Head() ledger.Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.chain.Head
}

// First is the number of the first record held, 0 when there is none.
func (j *Journal) First() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.first
}

// Size is the number of bytes in all files.
func (j *Journal) Size() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	var n int64
	for _, s := range j.segments {
		n += s.size
	}
	return n
}

// Append adds records that continue the chain. Those that are there already are
// skipped if equal; kind Conflict says that a record differs from the one held or
// does not follow, Invalid that it is malformed. Nothing is added unless everything
// is.
func (j *Journal) Append(records []ledger.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errClosed
	}
	if err := j.mend(); err != nil {
		return err
	}
	if err := j.late; err != nil {
		j.late = nil
		return err
	}
	records, err := j.fresh(records)
	if err != nil || len(records) == 0 {
		return err
	}
	if err := j.rotate(records[0].Seq); err != nil {
		return fail(sdk.Unavailable, err)
	}
	s := j.segments[len(j.segments)-1]
	var text []byte
	marks := len(s.marks)
	for _, r := range records {
		s.mark(r.Seq, s.size+int64(len(text)))
		text = append(r.AppendLine(text), '\n')
	}
	if err := j.write(s, text); err != nil {
		s.marks = s.marks[:marks]
		return fail(sdk.Unavailable, err)
	}
	s.size += int64(len(text))
	j.chain.Head = records[len(records)-1]
	j.chain.Head.Metadata = append([]byte(nil), j.chain.Head.Metadata...)
	s.last = j.chain.Head.Seq
	if j.first == 0 {
		j.first = records[0].Seq
	}
	return nil
}

// fresh drops the records that are there already and checks the others.
func (j *Journal) fresh(records []ledger.Record) ([]ledger.Record, error) {
	for len(records) > 0 && records[0].Seq <= j.chain.Head.Seq {
		if err := records[0].Check(); err != nil {
			return nil, err
		}
		held, err := j.read(records[0].Seq-1, 1)
		if err != nil {
			return nil, err
		}
		if len(held) == 0 || !held[0].Equal(records[0]) {
			return nil, conflict("record %d differs from the one held", records[0].Seq)
		}
		records = records[1:]
	}
	chain := ledger.Chain{Head: j.chain.Head}
	for _, r := range records {
		if err := r.Check(); err != nil {
			return nil, err
		}
		if err := chain.Add(r); err != nil {
			return nil, conflict("record %d does not follow record %d", r.Seq, chain.Head.Seq)
		}
	}
	return records, nil
}

func conflict(format string, args ...any) error {
	return &sdk.Error{Kind: sdk.Conflict, Op: "journal", Text: fmt.Sprintf(format, args...)}
}

// write appends text to the growing file, or leaves the file as it was.
func (j *Journal) write(s *segment, text []byte) error {
	_, err := j.active.WriteAt(text, s.size)
	if err == nil {
		switch j.o.Sync {
		case Always:
			err = j.active.Sync()
		case Interval:
			j.later()
		}
	}
	if err != nil {
		// After a failed fsync nobody knows what is on the disk, so what was
		// written is taken back and written again by the caller's next try.
		j.broken = err
		_ = j.mend()
	}
	return err
}

// mend takes back a failed write.
func (j *Journal) mend() error {
	if j.broken == nil {
		return nil
	}
	s := j.segments[len(j.segments)-1]
	if err := j.active.Truncate(s.size); err != nil {
		return fail(sdk.Unavailable, fmt.Errorf("%w; and it could not be taken back: %w", j.broken, err))
	}
	j.broken = nil
	return nil
}

// later syncs once within the interval.
func (j *Journal) later() {
	if j.dirty {
		return
	}
	j.dirty = true
	j.timer = time.AfterFunc(interval, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.late = errors.Join(j.late, j.sync())
	})
}

// Sync brings everything appended to stable storage.
func (j *Journal) Sync() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sync()
}

func (j *Journal) sync() error {
	if j.timer != nil {
		j.timer.Stop()
		j.timer = nil
	}
	j.dirty = false
	if j.active == nil || j.closed {
		return nil
	}
	if err := j.active.Sync(); err != nil {
		return fail(sdk.Unavailable, err)
	}
	return nil
}

// rotate begins a new file where there is none or the newest is full.
func (j *Journal) rotate(seq uint64) error {
	if n := len(j.segments); n > 0 && j.segments[n-1].size < int64(j.o.Rotate) {
		return nil
	}
	if j.active != nil {
		if err := j.active.Sync(); err != nil {
			return err
		}
	}
	path := filepath.Join(j.o.Dir, segmentName(seq))
	f, err := newFile(path)
	if err != nil {
		return err
	}
	if err := syncFolder(j.o.Dir); err != nil {
		return errors.Join(err, f.Close(), os.Remove(path))
	}
	if j.active != nil {
		_ = j.active.Close() // synced above
	}
	j.active = f
	j.segments = append(j.segments, &segment{path: path, first: seq})
	return nil
}

// newFile makes a file, or takes an empty one that an earlier try could not remove.
func newFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		err = conflict("%s is there already, and not empty", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Trim removes the oldest files while all their records have numbers up to seq. The
// file with the newest record stays, so that the chain goes on; while Copy runs all do.
func (j *Journal) Trim(seq uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errClosed
	}
	if j.copies > 0 {
		return nil
	}
	// A file that was begun and could not be written has no record yet: the chain ends
	// in the one before.
	for len(j.segments) > 1 && j.segments[1].size > 0 && j.segments[0].last <= seq {
		if err := os.Remove(j.segments[0].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fail(sdk.Unavailable, err)
		}
		j.segments = j.segments[1:]
		j.first = j.segments[0].first
	}
	return nil
}

// Close syncs and gives the folder free. It may be called twice.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	err := j.sync()
	j.closed = true
	if j.active != nil {
		err = errors.Join(err, j.active.Close())
	}
	return errors.Join(err, j.lock.Close())
}
