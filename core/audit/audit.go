package audit

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/ledger/journal"
)

// Sink is one ledger that gets every record.
type Sink struct {
	Name   string
	Ledger ledger.Ledger
	// Forgets is the plugin's: such a ledger cannot be asked what it has. It gets the records
	// that come after it was first named here.
	Forgets bool
}

// Options make a Recorder.
type Options struct {
	// Dir is the folder of the spool and the checkpoint, made (0700) if absent.
	Dir string
	// DigestKey keys the digests of ids.
	DigestKey [32]byte
	// Domain and Key sign checkpoints; without a key there are none.
	Domain string
	Key    ed25519.PrivateKey
	// Sinks are opened by the caller and closed by Close.
	Sinks []Sink
	// Queue is how many events may wait for the local disk; 0 means 1,024.
	Queue int
	// Spool is how much may wait for the slowest ledger; 0 means 256 MiB.
	Spool sdk.Size
	// Rotate is the size of one spool file; 0 means 1 MiB.
	Rotate sdk.Size
	// Behind is told how many records a ledger lacks, whenever that changes, and under the
	// name Spool how many events wait for the local disk that refuses them; it must not
	// wait. May be nil.
	Behind func(ledger string, records uint64)
	// Clock is time.Now when nil.
	Clock func() time.Time
	Log   *slog.Logger
}

// Spool is the name under which the spool itself is listed where ledgers are.
const Spool = "spool"

// checkpointEvery is how many records lie between two checkpoints.
const checkpointEvery = 64

// Recorder chains events and delivers them. Its methods may be called concurrently.
type Recorder struct {
	o       Options
	spool   *journal.Journal
	queue   chan pending
	ending  chan struct{} // closed by Close: no more events
	stop    context.CancelFunc
	writer  sync.WaitGroup
	feeders sync.WaitGroup
	sinks   []*feeder
	saved   uint64 // last checkpoint; the writer's alone
	warned  bool   // that the spool fills up; the writer's alone
	unsaved int    // records that nobody has at the end; the writer's alone
	trouble trouble
	lost    lost

	mu     sync.RWMutex // held for reading while an event is put into the queue
	closed bool
	once   sync.Once
	result error
}

type pending struct {
	event   Event
	at      time.Time
	flushed chan<- error // a Flush, not an event
	written chan<- error // Record waits for it; may be nil
}

// ErrClosed answers Record after Close.
var ErrClosed error = &sdk.Error{Kind: sdk.Closed, Op: "audit", Text: "the recorder has been closed"}

// ErrFull answers Record while the queue and the spool are full; who does so is named in
// the error that wraps it.
var ErrFull error = &sdk.Error{Kind: sdk.Full, Op: "audit", Text: "the spool is full because a ledger takes no records"}

// Open opens the spool, checks it and the ledgers' heads against each other and the
// checkpoint, and starts delivering. ctx bounds the opening alone. A chain that was
// cut off, forked or changed is an error of kind Corrupt.
func Open(ctx context.Context, o Options) (*Recorder, error) {
	if o.Queue == 0 {
		o.Queue = 1024
	}
	if o.Spool == 0 {
		o.Spool = 256 * sdk.MiB
	}
	if o.Rotate == 0 {
		o.Rotate = sdk.MiB
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Behind == nil {
		o.Behind = func(string, uint64) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	longest, err := longestHead(ctx, o.Sinks)
	if err != nil {
		return nil, err
	}
	spool, err := journal.Open(journal.Options{
		Dir: filepath.Join(o.Dir, "spool"), Rotate: o.Rotate, Partial: true, After: longest,
		Repaired: func(file string, bytes int64) {
			o.Log.Warn("audit spool repaired after a crash", "file", file, "bytes", bytes)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("audit spool: %w", err)
	}
	r := &Recorder{o: o, spool: spool, queue: make(chan pending, o.Queue), ending: make(chan struct{})}
	if err := r.agree(ctx, longest); err != nil {
		return nil, errors.Join(err, spool.Close())
	}
	run, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.o.Behind(Spool, 0)
	r.trim()
	r.warn(lagging)
	for _, f := range r.sinks {
		f.report()
		r.feeders.Go(func() { f.run(run) })
	}
	r.writer.Go(r.write)
	return r, nil
}

// lagging is how many records a ledger may lack at the start without a word.
const lagging = 1024

// longestHead is the newest record that any keeping ledger has.
func longestHead(ctx context.Context, sinks []Sink) (ledger.Record, error) {
	var longest ledger.Record
	for _, s := range sinks {
		if s.Forgets {
			continue
		}
		head, err := s.Ledger.Head(ctx)
		if err != nil {
			return longest, fmt.Errorf("ledger %s: %w", s.Name, err)
		}
		if head.Seq > longest.Seq {
			longest = head
		}
	}
	return longest, nil
}

// agree checks that the spool, every ledger and the checkpoint tell the same chain.
func (r *Recorder) agree(ctx context.Context, longest ledger.Record) error {
	head := r.spool.Head()
	if head.Seq < longest.Seq {
		return &sdk.Error{Kind: sdk.Corrupt, Op: "audit", Text: fmt.Sprintf(
			"a ledger has record %d but the spool ends at %d: the spool %s is not the one that made this chain; remove it to go on after the ledger's last record",
			longest.Seq, head.Seq, filepath.Join(r.o.Dir, "spool"))}
	}
	for _, s := range r.o.Sinks {
		f := &feeder{sink: s, r: r, wake: make(chan struct{}, 1), gate: make(chan struct{}, 1)}
		r.sinks = append(r.sinks, f)
		if s.Forgets {
			var err error
			if f.done, err = r.resume(ctx, s.Name); err != nil {
				return err
			}
			continue
		}
		at, err := s.Ledger.Head(ctx)
		if err != nil {
			return fmt.Errorf("ledger %s: %w", s.Name, err)
		}
		if held, err := r.record(ctx, at.Seq); err != nil {
			return err
		} else if held.Seq != 0 && !held.Equal(at) {
			return &sdk.Error{Kind: sdk.Corrupt, Op: "audit", Text: fmt.Sprintf("ledger %s has another record %d than the spool", s.Name, at.Seq)}
		}
		f.done = at.Seq
		if err := r.compare(ctx, s.Name, at); err != nil {
			return err
		}
	}
	return r.checkCheckpoint(ctx, head)
}

// record finds one record in the spool, or in a ledger that keeps it; Seq 0 when
// nobody has it.
func (r *Recorder) record(ctx context.Context, seq uint64) (ledger.Record, error) {
	if seq == 0 {
		return ledger.Record{}, nil
	}
	if h := r.spool.Head(); h.Seq == seq {
		return h, nil
	}
	page, err := r.page(ctx, seq-1, 1)
	if err != nil || len(page) == 0 || page[0].Seq != seq {
		return ledger.Record{}, err
	}
	return page[0], nil
}

// page reads records from the spool, or from a keeping ledger where the spool has
// been trimmed.
func (r *Recorder) page(ctx context.Context, after uint64, limit int) ([]ledger.Record, error) {
	if first := r.spool.First(); first != 0 && first <= after+1 {
		return r.spool.Read(after, limit)
	}
	for _, s := range r.o.Sinks {
		if s.Forgets {
			continue
		}
		if page, err := s.Ledger.Read(ctx, after, limit); err == nil && len(page) > 0 && page[0].Seq == after+1 {
			return page, nil
		}
	}
	return nil, nil
}

// Subject is the keyed digest of an id: HMAC-SHA-256 over "commucat/audit/1", the
// kind and the id, each followed by a zero byte.
func (r *Recorder) Subject(kind, id string) [32]byte { return Subject(r.o.DigestKey, kind, id) }

// Subject is Recorder.Subject for a key at hand.
func Subject(key [32]byte, kind, id string) [32]byte {
	mac := hmac.New(sha256.New, key[:])
	for _, s := range []string{"commucat/audit/1", kind, id} {
		_, _ = io.WriteString(mac, s)
		_, _ = mac.Write([]byte{0})
	}
	return [32]byte(mac.Sum(nil))
}

// Record queues an event. It returns at once unless the queue is full; then it waits
// for the local disk until ctx ends, or answers at once why the disk or the spool takes
// nothing. nil means that the event will be recorded as long as the process lives; see
// RecordDurably. An event that is answered otherwise is lost, and as soon as there is room
// a record of the action audit.lost says so.
func (r *Recorder) Record(ctx context.Context, e Event) error {
	return r.put(ctx, pending{event: e, at: r.o.Clock()})
}

// RecordDurably is Record that waits until the event is on stable storage. The end of ctx
// does not take an event back that has been queued.
func (r *Recorder) RecordDurably(ctx context.Context, e Event) error {
	written := make(chan error, 1)
	if err := r.put(ctx, pending{event: e, at: r.o.Clock(), written: written}); err != nil {
		return err
	}
	select {
	case err := <-written:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Recorder) put(ctx context.Context, p pending) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed {
		return ErrClosed
	}
	err := r.await(ctx, p)
	if err != nil {
		r.lost.add(p)
	}
	return err
}

// await waits for room in the queue, unless the spool takes nothing.
func (r *Recorder) await(ctx context.Context, p pending) error {
	for {
		if r.queued(p) {
			return nil
		}
		begins, _, err := r.trouble.now()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		select {
		case r.queue <- p:
			return nil
		case <-begins:
		case <-ctx.Done():
		case <-r.ending:
			return ErrClosed
		}
	}
}

// queued puts p into the queue if there is room.
func (r *Recorder) queued(p pending) bool {
	select {
	case r.queue <- p:
		return true
	default:
		return false
	}
}

// Flush waits until everything recorded before the call is on stable storage and in
// every ledger.
func (r *Recorder) Flush(ctx context.Context) error {
	flushed := make(chan error, 1)
	if err := r.put(ctx, pending{flushed: flushed}); err != nil {
		return err
	}
	select {
	case err := <-flushed:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	head := r.spool.Head().Seq
	for _, f := range r.sinks {
		if err := f.reach(ctx, head); err != nil {
			return err
		}
	}
	return nil
}

// Head is the newest record on stable storage.
func (r *Recorder) Head() ledger.Record { return r.spool.Head() }

// State describes one ledger.
type State struct {
	Name string
	// Behind is how many records it lacks.
	Behind uint64
	// Err is why the last try failed; nil when it did not.
	Err error
}

// States describe the ledgers, in the order of Options.Sinks. Before them stands, under the
// name Spool, the spool while it cannot be written: Behind is how many events wait in
// memory. Where it fills up, the ledger that is furthest behind has an error that says so.
func (r *Recorder) States() []State {
	head := r.spool.Head().Seq
	out := make([]State, 0, 1+len(r.sinks))
	if _, records, err := r.trouble.now(); err != nil {
		out = append(out, State{Name: Spool, Behind: uint64(records + len(r.queue)), Err: err})
	}
	worst := -1
	for _, f := range r.sinks {
		s := f.state(head)
		if s.Behind > 0 && (worst < 0 || s.Behind > out[worst].Behind) {
			worst = len(out)
		}
		out = append(out, s)
	}
	if worst >= 0 && r.high() {
		filling := fmt.Errorf("the spool is %d%% full because of it; %s", 100*r.spool.Size()/int64(r.o.Spool), remedy)
		out[worst].Err = errors.Join(out[worst].Err, filling)
	}
	return out
}

// Close records what is queued, gives the ledgers until ctx ends to take it, and
// closes them. What they did not take stays in the spool. What the local disk does not
// take is lost; it is an error then, and the log has every record.
func (r *Recorder) Close(ctx context.Context) error {
	r.once.Do(func() {
		close(r.ending) // those who wait in put let go of the lock
		r.mu.Lock()
		r.closed = true
		r.mu.Unlock()
		close(r.queue)
		r.writer.Wait()
		if r.unsaved > 0 {
			r.result = &sdk.Error{Kind: sdk.Unavailable, Op: "audit", Text: fmt.Sprintf("%d records could not be kept; the log has them", r.unsaved)}
		}
		head := r.spool.Head().Seq
		for _, f := range r.sinks {
			f.poke()
			if err := f.reach(ctx, head); err != nil {
				r.o.Log.Warn("ledger did not take every record before the end", "ledger", f.sink.Name, "error", err)
			}
		}
		r.stop()
		r.feeders.Wait()
		r.trim()
		r.result = errors.Join(r.result, r.checkpoint())
		for _, s := range r.o.Sinks {
			if err := s.Ledger.Close(ctx); err != nil {
				r.result = errors.Join(r.result, fmt.Errorf("ledger %s: %w", s.Name, err))
			}
		}
		r.result = errors.Join(r.result, r.spool.Close())
	})
	return r.result
}
