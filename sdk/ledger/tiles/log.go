package tiles

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/sdk"
)

// Options open a Log.
type Options struct {
	// Dir is the folder; it is made (0700) if absent.
	Dir string
	// Signer signs checkpoints; its name is the log's origin.
	Signer note.Signer
	// Key is Signer's public half ("NAME+ID+KEY"), for what is found in Dir.
	Key string
}

// Log is the writing side of a transparency log. Its methods may be called
// concurrently.
type Log struct {
	opt  Options
	lock *os.File

	mu     sync.Mutex
	hashes hashes
	// bundle is the last, partial bundle as it lies on disk.
	bundle []byte
	head   Checkpoint
	failed error
	// doubtful: a failed Append may have made folders whose names never reached the disk.
	doubtful bool
	closed   bool
}

// Open opens or makes a log. What a crash left behind the last checkpoint is
// overwritten by what follows; a right edge that contradicts the checkpoint is an
// error of kind Corrupt, a folder in use one of kind Conflict. The whole log is
// verified by Reader.Verify.
func Open(o Options) (_ *Log, err error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(o.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, failure(sdk.Conflict, o.Dir+" is in use by another process", nil)
	}
	l := &Log{opt: o, lock: lock}
	if err := l.load(); err != nil {
		return nil, err
	}
	return l, nil
}

// load takes the log as it lies in its folder, or makes an empty one.
func (l *Log) load() error {
	l.hashes = hashes{tiles: map[tileID][]byte{}, load: loader(os.DirFS(l.opt.Dir))}
	signed, err := readBounded(os.DirFS(l.opt.Dir), "checkpoint", maxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return l.publish()
	}
	if err != nil {
		return err
	}
	if l.head, _, err = ParseCheckpoint(signed, l.opt.Key); err != nil {
		return err
	}
	l.hashes.size = l.head.Size
	return l.loadEdge()
}

// Reload takes the log as it lies in its folder, after an Append that failed: on a disk
// that was full there is no other way on but a new start. Head says how much of that
// Append is there: nothing or everything.
func (l *Log) Reload() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.failed == nil {
		return l.failed
	}
	// The checkpoint may be new with a name that is not on stable storage yet.
	f := folders{dir: l.opt.Dir}
	f.touch(l.opt.Dir)
	if err := f.sync(); err != nil {
		return err
	}
	again := Log{opt: l.opt}
	if err := again.load(); err != nil {
		return err
	}
	l.hashes, l.bundle, l.head = again.hashes, again.bundle, again.head
	l.failed, l.doubtful = nil, true
	return nil
}

// loadEdge reads what appending needs and compares it with the checkpoint.
func (l *Log) loadEdge() error {
	root, err := tlog.TreeHash(l.head.Size, &l.hashes)
	if err != nil {
		return err
	}
	if root != tlog.Hash(l.head.Root) {
		return &DamageError{File: "checkpoint", Record: -1, Text: "the newest hashes are not those of the signed tree head; 'audit verify' finds the place"}
	}
	n, w := l.head.Size/width, int(l.head.Size%width)
	if w == 0 {
		return nil
	}
	entries, err := readBundle(os.DirFS(l.opt.Dir), n, w)
	for _, e := range entries {
		l.bundle = appendEntry(l.bundle, e)
	}
	return err
}

// readBundle reads the first w records of bundle n. With an error it returns those
// before the damage.
func readBundle(dir fs.FS, n int64, w int) ([][]byte, error) {
	b, err := readPartial(dir, bundlePath(n, w), bundlePath(n, width), maxBundle)
	if err != nil {
		var d *DamageError
		if errors.As(err, &d) {
			d.Record, d.Text = n*width, "and those that follow cannot be read: "+d.Text
		}
		return nil, err
	}
	entries, err := parseBundle(b)
	if len(entries) < w {
		text := "is missing"
		if err != nil {
			text = "is cut off"
		}
		return entries, &DamageError{File: bundlePath(n, w), Record: n*width + int64(len(entries)), Text: text}
	}
	return entries[:w], nil
}

// Head is the tree head of the last checkpoint.
func (l *Log) Head() Checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Append adds entries; they and the checkpoint that covers them are on stable
// storage when it returns nil. After a failed write the log answers that error
// until Reload.
func (l *Log) Append(entries [][]byte) error {
	for _, e := range entries {
		if len(e) > MaxEntry {
			return failure(sdk.Invalid, "a record is longer than 65,535 bytes", nil)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil || len(entries) == 0 {
		return l.failed
	}
	if err := l.append(entries); err != nil {
		l.failed = err
		return err
	}
	return nil
}

func (l *Log) append(entries [][]byte) error {
	old := l.hashes.size
	touched := folders{dir: l.opt.Dir, doubtful: l.doubtful}
	for i, e := range entries {
		if err := l.hashes.add(tlog.RecordHash(e)); err != nil {
			return err
		}
		l.bundle = appendEntry(l.bundle, e)
		size := old + int64(i) + 1
		if size%width == 0 {
			if err := touched.write(bundlePath(size/width-1, width), l.bundle); err != nil {
				return err
			}
			l.bundle = nil
		}
	}
	if w := l.hashes.size % width; w != 0 {
		if err := touched.write(bundlePath(l.hashes.size/width, int(w)), l.bundle); err != nil {
			return err
		}
	}
	for _, t := range tlog.NewTiles(height, old, l.hashes.size) {
		data, err := l.hashes.tile(t.L, t.N)
		if err != nil {
			return err
		}
		if err := touched.write(tilePath(t), data[:t.W*tlog.HashSize]); err != nil {
			return err
		}
	}
	if err := touched.sync(); err != nil {
		return err
	}
	if err := l.publish(); err != nil {
		return err
	}
	l.doubtful = false
	l.hashes.prune()
	return l.removePartials(old)
}

// publish signs and writes the tree head.
func (l *Log) publish() error {
	root, err := tlog.TreeHash(l.hashes.size, &l.hashes)
	if err != nil {
		return err
	}
	head := Checkpoint{Origin: l.opt.Signer.Name(), Size: l.hashes.size, Root: root}
	signed, err := note.Sign(&note.Note{Text: head.Text()}, l.opt.Signer)
	if err != nil {
		return failure(sdk.Other, "the checkpoint could not be signed", err)
	}
	f := folders{dir: l.opt.Dir}
	if err := f.write("checkpoint", signed); err != nil {
		return err
	}
	if err := f.sync(); err != nil {
		return err
	}
	l.head = head
	return nil
}

// removePartials drops the partial tiles and bundles that full ones have replaced
// since the tree had old records.
func (l *Log) removePartials(old int64) error {
	var errs []error
	drop := func(full string) {
		errs = append(errs, os.RemoveAll(filepath.Join(l.opt.Dir, full+".p")))
	}
	for n := old / width; n < l.hashes.size/width; n++ {
		drop(bundlePath(n, width))
	}
	for level := 0; l.hashes.size>>(level*height) >= width; level++ {
		for n := old >> (level * height) / width; n < l.hashes.size>>(level*height)/width; n++ {
			drop(tilePath(tlog.Tile{H: height, L: level, N: n, W: width}))
		}
	}
	return errors.Join(errs...)
}

// Read returns at most limit records from number after (counted from 0) on.
func (l *Log) Read(after int64, limit int) ([][]byte, error) {
	l.mu.Lock()
	size := l.head.Size
	l.mu.Unlock()
	return readRecords(os.DirFS(l.opt.Dir), size, after, limit)
}

func readRecords(dir fs.FS, size, after int64, limit int) ([][]byte, error) {
	var out [][]byte
	for after < size && len(out) < limit {
		n := after / width
		entries, err := readBundle(dir, n, tileSize(0, n, size))
		if err != nil {
			return out, err
		}
		entries = entries[after%width:]
		entries = entries[:min(len(entries), limit-len(out))]
		out, after = append(out, entries...), after+int64(len(entries))
	}
	return out, nil
}

// Close gives the folder free. It may be called twice.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed, l.failed = true, failure(sdk.Closed, "it has been closed", nil)
	return l.lock.Close()
}
