package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// Keys of the Pebble engine. A queue's name is preceded by its length, so that
// no queue's rows lie within another's.
//
//	'r' | len u8 | queue | position u64   sum u32 | expires u32 | id 16 | body
//	'm' | key                             mark
//	'e' | bucket u32 | queue              (empty: a note)
//	'h'                                   u64, positions up to here are used
//	'v'                                   u32, version of this layout
//
// Integers are big-endian.
const (
	rowKey     = 'r'
	markKey    = 'm'
	noteKey    = 'e'
	highKey    = 'h'
	versionKey = 'v'

	rowHeader   = 24
	rowsVersion = 1
)

// pebbleRows is the engine over Pebble. Pebble cannot go on after a failed write,
// so the database is given up then and opened again from the disk.
type pebbleRows struct {
	dir string
	fs  vfs.FS
	log *slog.Logger
	// degraded is told of failures (and nil when they are over).
	degraded func(error)
	memtable uint64

	mu  sync.RWMutex
	now *instance // nil while broken
	// reopened is called before a database that was opened again is in use: deletions
	// that had not come to the disk are undone then. It may be nil.
	reopened func()
	opening  bool
	closed   bool
	retry    time.Time // not before
	cause    error
	lost     sync.WaitGroup // instances that were given up, or are being opened
}

// patience bounds how long an instance may take to close after it failed.
const patience = 5 * time.Second

// instance is one opening of the database.
type instance struct {
	*pebble.DB
	guard guard
	// aside is where a checkpoint is being made; see guardFS.
	aside aside
	// commit serialises commits up to their sync. Pebble's pipeline would take
	// more at once, but whoever stands behind a failed one there waits for ever.
	commit sync.Mutex
	users  sync.WaitGroup
}

func openPebble(dir string, fs vfs.FS, memtable uint64, log *slog.Logger, degraded func(error)) (*pebbleRows, error) {
	p := &pebbleRows{dir: dir, fs: fs, memtable: memtable, log: log, degraded: degraded}
	n, err := p.start()
	p.started(n, err)
	return p, err
}

// start opens an instance.
func (p *pebbleRows) start() (*instance, error) {
	w := &witness{path: p.dir + ".manifests"}
	if err := w.check(p.dir); err != nil {
		return nil, err
	}
	n := &instance{}
	err := n.open(p.dir, &guardFS{p.fs, &n.guard, &n.aside, w}, p.memtable, p.log)
	if cause := n.guard.failed(); cause != nil {
		if err == nil {
			_ = n.end()
		}
		return nil, unavailable(p.dir, cause)
	}
	var own *storage.Error
	var errno syscall.Errno
	switch {
	case err == nil:
		return n, nil
	case errors.As(err, &own):
		return nil, err
	case errors.As(err, &errno):
		return nil, unavailable(p.dir, err)
	}
	return nil, &storage.Error{Kind: sdk.Corrupt, Op: p.dir, Err: err}
}

// started takes a new instance into use.
func (p *pebbleRows) started(n *instance, err error) {
	if err == nil {
		p.tell()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opening = false
	switch {
	case err != nil:
		p.cause, p.retry = err, time.Now().Add(patience/20)
	case p.closed:
		p.lost.Go(func() { _ = n.end() })
	default:
		if p.cause != nil {
			p.log.Info("queues_reopened")
			p.degraded(nil)
		}
		p.now, p.cause = n, nil
	}
}

func (n *instance) open(dir string, fs vfs.FS, memtable uint64, log *slog.Logger) (err error) {
	defer caught(&err)
	o := &pebble.Options{
		FS:                          fs,
		Logger:                      &pebbleLog{log, &n.guard},
		EventListener:               n.events(log),
		FormatMajorVersion:          pebble.FormatNewest,
		CacheSize:                   4 << 20,
		MemTableSize:                memtable,
		MemTableStopWritesThreshold: 4,
		MaxOpenFiles:                256,
		L0CompactionThreshold:       8,
		L0StopWritesThreshold:       32,
		LBaseMaxBytes:               64 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		BytesPerSync:                1 << 20,
	}
	// Bodies are sealed: nothing to compress.
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	for i := range o.Levels {
		o.Levels[i].BlockSize = 16 << 10
	}
	n.DB, err = pebble.Open(dir, o)
	if err != nil {
		return err
	}
	v, closer, err := n.Get([]byte{versionKey})
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		err = n.Set([]byte{versionKey}, binary.BigEndian.AppendUint32(nil, rowsVersion), pebble.Sync)
	case err == nil:
		if v := binary.BigEndian.Uint32(v); v > rowsVersion {
			err = &storage.Error{Kind: sdk.Invalid, Op: dir, Text: fmt.Sprintf(
				"the messages were written by a newer version (layout %d, this one knows %d); run that version", v, rowsVersion)}
		}
		_ = closer.Close()
	}
	if err != nil {
		_ = n.Close()
	}
	return err
}

// events are what Pebble reports from its own goroutines. Damage is left to the
// call that comes across it; a database that was given up has some to report.
func (n *instance) events(log *slog.Logger) *pebble.EventListener {
	report := func(err error) {
		if n.guard.failed() == nil {
			log.Error("queues_background", "error", err)
		}
	}
	return &pebble.EventListener{
		BackgroundError: report,
		DataCorruption:  func(i pebble.DataCorruptionInfo) { report(i.Details) },
	}
}

// use calls f with the database. Failures of the disk, and panics that Pebble
// turns them into, end this instance.
func (p *pebbleRows) use(op string, f func(*instance) error) error {
	n, err := p.instance()
	if err != nil {
		return err
	}
	err = n.protected(f)
	n.users.Done()
	if cause := n.guard.failed(); cause != nil {
		p.abandon(n, cause)
		return unavailable(op, cause)
	}
	var own *storage.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return err
	case errors.Is(err, pebble.ErrCorruption):
		p.degraded(err)
		return &storage.Error{Kind: sdk.Corrupt, Op: op, Err: err}
	}
	n.guard.fail(err)
	p.abandon(n, err)
	return unavailable(op, err)
}

// instance gives the open database and counts its user. Without one it has one
// opened, at most four times a second.
func (p *pebbleRows) instance() (*instance, error) {
	p.mu.RLock()
	if n := p.now; n != nil {
		n.users.Add(1)
		p.mu.RUnlock()
		return n, nil
	}
	p.mu.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, storage.ErrClosed
	case p.now != nil:
		p.now.users.Add(1)
		return p.now, nil
	case !p.opening && time.Now().After(p.retry):
		p.opening = true
		p.lost.Go(func() {
			var n *instance
			err := errors.New("opening was given up")
			defer func() { p.started(n, err) }() // also if this goroutine is unwound
			n, err = p.start()
		})
	}
	return nil, unavailable("queues", p.cause)
}

func (n *instance) protected(f func(*instance) error) (err error) {
	defer caught(&err)
	return f(n)
}

// caught turns a panic of Pebble into an error.
func caught(err *error) {
	switch r := recover().(type) {
	case nil:
	case error:
		*err = r
	default:
		*err = fmt.Errorf("%v", r)
	}
}

// abandon gives n up: its files take no more writes, and it ends by itself.
func (p *pebbleRows) abandon(n *instance, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now != n {
		return
	}
	p.log.Error("queues_failed", "error", cause)
	p.degraded(unavailable("queues", cause))
	p.now, p.cause, p.retry = nil, cause, time.Now()
	p.lost.Go(func() { _ = n.end() })
}

// end closes the database. Where a failure left one of its locks held that never
// returns: then it is left to the garbage collector.
func (n *instance) end() error {
	done := make(chan error, 1)
	go func() {
		n.users.Wait()
		done <- n.protected(func(n *instance) error { return n.Close() })
	}()
	if n.guard.failed() == nil {
		return <-done
	}
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return n.guard.failed()
	}
}

func (p *pebbleRows) ready() error {
	return p.use("ready", func(*instance) error { return nil })
}

func (p *pebbleRows) close() error {
	p.mu.Lock()
	n := p.now
	p.now, p.closed = nil, true
	p.mu.Unlock()
	var err error
	if n != nil {
		err = n.end()
	}
	lost := make(chan struct{})
	go func() { p.lost.Wait(); close(lost) }()
	select {
	case <-lost:
	case <-time.After(2 * patience):
	}
	return err
}

func rowPrefix(dst []byte, queue string) []byte {
	dst = append(dst, rowKey, byte(len(queue)))
	return append(dst, queue...)
}

func appendRowKey(dst []byte, queue string, position uint64) []byte {
	return binary.BigEndian.AppendUint64(rowPrefix(dst, queue), position)
}

func appendNote(dst []byte, n note) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, noteKey), n.bucket)
	return append(dst, n.queue...)
}

// write implements engine.
func (p *pebbleRows) write(c *change, sync bool) error {
	return p.use("write", func(n *instance) error {
		b := n.NewBatchWithSize(c.size() + 16*len(c.puts) + 48*len(c.dels) + 64)
		if err := n.fill(b, c); err != nil {
			return err
		}
		if err := n.apply(b, sync); err != nil {
			return err
		}
		if sync {
			if err := b.SyncWait(); err != nil {
				return err
			}
		}
		return b.Close()
	})
}

func (n *instance) apply(b *pebble.Batch, sync bool) error {
	n.commit.Lock()
	defer n.commit.Unlock()
	if err := n.guard.failed(); err != nil {
		return err
	}
	if sync {
		return n.ApplyNoSyncWait(b, pebble.Sync)
	}
	return n.Apply(b, pebble.NoSync)
}

func (n *instance) fill(b *pebble.Batch, c *change) error {
	var (
		key []byte
		sum summer
	)
	c.order()
	for i := range c.puts {
		r := &c.puts[i]
		op := b.SetDeferred(2+len(r.queue)+8, rowHeader+len(r.body))
		appendRowKey(op.Key[:0], r.queue, r.position)
		v := op.Value
		binary.BigEndian.PutUint32(v, sum.sum(r.queue, &r.row, r.body))
		binary.BigEndian.PutUint32(v[4:], r.expires)
		copy(v[8:], r.id[:])
		copy(v[rowHeader:], r.body)
		if err := op.Finish(); err != nil {
			return err
		}
	}
	// Each key is set once, and deleted once as far as the index knows.
	for _, d := range c.dels {
		if err := del(b, d.queue, d.position); err != nil {
			return err
		}
	}
	for _, d := range c.cuts {
		if err := n.cut(b, d); err != nil {
			return err
		}
	}
	for i := range c.marks {
		key = append(append(key[:0], markKey), c.marks[i].Key...)
		var err error
		if c.marks[i].Value == nil {
			err = b.Delete(key, nil)
		} else {
			err = b.Set(key, c.marks[i].Value, nil)
		}
		if err != nil {
			return err
		}
	}
	for _, n := range c.notes {
		if err := b.Set(appendNote(key[:0], n), nil, nil); err != nil {
			return err
		}
	}
	for _, n := range c.paid {
		if err := b.Delete(appendNote(key[:0], n), nil); err != nil {
			return err
		}
	}
	if c.high != 0 {
		return b.Set([]byte{highKey}, binary.BigEndian.AppendUint64(nil, c.high), nil)
	}
	return nil
}

// rowEnd is the first key after a queue's row at position to.
func rowEnd(queue string, to uint64) []byte {
	if to == ^uint64(0) {
		return append(appendRowKey(nil, queue, to), 0)
	}
	return appendRowKey(nil, queue, to+1)
}

// walk calls f for rows from..to; the value is valid during the call.
func walk(db *instance, queue string, from, to uint64, f func(r row, value []byte) (bool, error)) error {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: appendRowKey(nil, queue, from), UpperBound: rowEnd(queue, to)})
	if err != nil {
		return err
	}
	n := 2 + len(queue)
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		v, err := it.ValueAndErr()
		if err == nil && (len(k) != n+8 || len(v) < rowHeader) {
			err = corrupt("row of wrong length")
		}
		more := false
		if err == nil {
			r := row{
				position: binary.BigEndian.Uint64(k[n:]),
				expires:  binary.BigEndian.Uint32(v[4:]), size: uint32(len(v) - rowHeader),
			}
			copy(r.id[:], v[8:])
			more, err = f(r, v)
		}
		if err != nil {
			_ = it.Close()
			return err
		}
		if !more {
			break
		}
	}
	return it.Close()
}

// scan implements engine.
func (p *pebbleRows) scan(queue string, f func(row)) error {
	return p.use("scan", func(n *instance) error {
		return walk(n, queue, 0, ^uint64(0), func(r row, _ []byte) (bool, error) { f(r); return true, nil })
	})
}

// id implements engine.
func (p *pebbleRows) id(queue string, position uint64) (id [16]byte, err error) {
	err = p.use("id", func(n *instance) error {
		v, closer, err := n.Get(appendRowKey(nil, queue, position))
		if errors.Is(err, pebble.ErrNotFound) {
			return corrupt("a row of the index is not in the store")
		}
		if err != nil {
			return err
		}
		if len(v) >= rowHeader {
			copy(id[:], v[8:])
		}
		return closer.Close()
	})
	return id, err
}

// read implements engine.
func (p *pebbleRows) read(queue string, after, until uint64, now uint32, page storage.Page) (out []storage.Envelope, err error) {
	err = p.use("read", func(n *instance) error {
		var (
			bytes int
			slab  []byte
			sum   summer
		)
		return walk(n, queue, after+1, until, func(r row, v []byte) (bool, error) {
			if r.expires <= now {
				return true, nil
			}
			body := v[rowHeader:]
			if sum.sum(queue, &r, body) != binary.BigEndian.Uint32(v) {
				return false, corrupt(fmt.Sprintf("row at position %d fails its checksum", r.position))
			}
			slab, body = keep(slab, body)
			out = append(out, storage.Envelope{Position: r.position, ID: r.id, Payload: body, Expires: stamp(r.expires)})
			bytes += len(body)
			return (page.Messages <= 0 || len(out) < page.Messages) && (page.Bytes <= 0 || bytes < page.Bytes), nil
		})
	})
	return out, err
}

// keep copies b into a slab that several rows share.
func keep(slab, b []byte) (rest, copied []byte) {
	const size = 32 << 10
	if len(b) > size/4 {
		return slab, append([]byte{}, b...)
	}
	if cap(slab)-len(slab) < len(b) {
		slab = make([]byte, 0, size)
	}
	n := len(slab)
	slab = append(slab, b...)
	return slab, slab[n:len(slab):len(slab)]
}

// marks implements engine.
func (p *pebbleRows) marks(keys []string) (out [][]byte, err error) {
	out = make([][]byte, len(keys))
	err = p.use("marks", func(n *instance) error {
		for i, k := range keys {
			v, closer, err := n.Get(append([]byte{markKey}, k...))
			if errors.Is(err, pebble.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			out[i] = append([]byte{}, v...)
			if err := closer.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// due implements engine.
func (p *pebbleRows) due(before uint32, limit int) (out []note, err error) {
	err = p.use("due", func(n *instance) error {
		it, err := n.NewIter(&pebble.IterOptions{
			LowerBound: []byte{noteKey}, UpperBound: appendNote(nil, note{bucket: before}),
		})
		if err != nil {
			return err
		}
		for ok := it.First(); ok && len(out) < limit; ok = it.Next() {
			k := it.Key()
			out = append(out, note{binary.BigEndian.Uint32(k[1:]), string(k[5:])})
		}
		return it.Close()
	})
	return out, err
}

// high implements engine.
func (p *pebbleRows) high() (high uint64, err error) {
	err = p.use("high", func(n *instance) error {
		v, closer, err := n.Get([]byte{highKey})
		if errors.Is(err, pebble.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		high = binary.BigEndian.Uint64(v)
		return closer.Close()
	})
	return high, err
}
