package audit

import (
	"encoding/hex"
	"fmt"
	"math/bits"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/ledger"
)

const (
	// batch is how many events one fsync may serve.
	batch = 256
	// While the local disk refuses, writing is tried again after these pauses.
	firstRetry   = 10 * time.Millisecond
	longestRetry = time.Second
)

// write is the goroutine that chains events and puts them into the spool.
func (r *Recorder) write() {
	for first := range r.queue {
		group := []pending{first}
		for len(group) < batch {
			next, ok := r.more()
			if !ok {
				break
			}
			group = append(group, next)
		}
		r.commit(group)
		r.admit()
	}
	r.admit()
}

// more takes what is queued already.
func (r *Recorder) more() (pending, bool) {
	select {
	case p, ok := <-r.queue:
		return p, ok
	default:
		return pending{}, false
	}
}

// admit records that events were lost, once those before them have been recorded.
func (r *Recorder) admit() {
	if len(r.queue) > 0 {
		return
	}
	if e, ok := r.lost.take(); ok {
		r.commit([]pending{{event: e, at: r.o.Clock()}})
	}
}

// commit writes a group with one fsync and answers whoever waits.
func (r *Recorder) commit(group []pending) {
	var records []ledger.Record
	prev := r.spool.Head()
	for i, p := range group {
		if p.flushed != nil {
			continue
		}
		next, err := r.chain(prev, p)
		if err != nil { // the event itself cannot be written; its neighbours can
			r.o.Log.Error("audit event refused", "action", p.event.Action, "error", err)
			r.lost.add(p)
			answer(p.written, err)
			group[i].written = nil
			continue
		}
		records, prev = append(records, next), next
	}
	err := r.store(records)
	for _, p := range group {
		answer(p.written, err)
		answer(p.flushed, err)
	}
	if err != nil || len(records) == 0 {
		return
	}
	for _, f := range r.sinks {
		f.report()
		f.poke()
	}
	r.warn(0)
	// The first record gets a checkpoint too: without one nobody can say where the
	// chain ended.
	if r.saved == 0 || prev.Seq >= r.saved+checkpointEvery {
		if err := r.checkpoint(); err != nil {
			r.o.Log.Error("audit checkpoint not written", "error", err)
		}
	}
}

func answer(c chan<- error, err error) {
	if c != nil {
		c <- err
	}
}

func (r *Recorder) chain(prev ledger.Record, p pending) (ledger.Record, error) {
	m, err := ledger.Metadata(p.event.metadata(r.Subject))
	if err != nil {
		return ledger.Record{}, err
	}
	at := p.at
	if at.Before(prev.Time) { // the clock was set back; the chain's time is not
		at = prev.Time
	}
	return ledger.Next(prev, at, r.Subject(p.event.kind, p.event.id), m)
}

// store puts records into the spool. A disk that fails and a spool that is full are
// tried again until Close, while the queue fills; put refuses what comes then. At the
// end the spool may grow beyond its limit by the queue, rather than lose it.
func (r *Recorder) store(records []ledger.Record) error {
	if len(records) == 0 {
		return nil
	}
	pause := firstRetry
	for try := uint(1); ; try++ {
		err := r.append(records)
		r.fails(err, try, len(records))
		if err == nil {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			pause = min(2*pause, longestRetry)
		case <-r.ending:
			timer.Stop()
			return r.storeLast(records)
		}
	}
}

// storeLast is the last try for records. What cannot be kept stands in the log, with all
// that the record would have said: keyed digests, no ids.
func (r *Recorder) storeLast(records []ledger.Record) error {
	err := r.spool.Append(records)
	if err == nil {
		r.trouble.set(nil, 0)
		r.o.Behind(Spool, 0)
		return nil
	}
	for _, rec := range records {
		r.o.Log.Error("audit record lost: the relay ends and the spool cannot be written", "at", rec.Time,
			"digest", hex.EncodeToString(rec.Digest[:]), "metadata", string(rec.Metadata), "error", err)
	}
	r.unsaved += len(records)
	return err
}

// fails notes how a try to write the spool ended. The first tries and then ever fewer
// are logged: the log may be on the same disk.
func (r *Recorder) fails(err error, try uint, records int) {
	if err != nil {
		waiting := records + len(r.queue)
		r.o.Behind(Spool, uint64(waiting))
		if bits.OnesCount(try) == 1 {
			r.o.Log.Error("audit spool not written: security events wait in memory", "waiting", waiting, "at_most", cap(r.queue)+batch, "tries", try, "error", err)
		}
	}
	if ended := r.trouble.set(err, records) && err == nil; ended {
		r.o.Log.Warn("audit spool is written again", "tries", try)
		r.o.Behind(Spool, 0)
	}
}

// trouble is why the spool is not written.
type trouble struct {
	mu      sync.Mutex
	err     error
	records int           // in hand, besides the queue
	begins  chan struct{} // closed when there is trouble
}

// set says whether trouble began or ended.
func (t *trouble) set(err error, records int) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed = (err == nil) != (t.err == nil)
	t.err, t.records = err, records
	if changed && err != nil {
		close(t.beginning())
	} else if changed {
		t.begins = nil
	}
	return changed
}

// beginning is called with mu held.
func (t *trouble) beginning() chan struct{} {
	if t.begins == nil {
		t.begins = make(chan struct{})
	}
	return t.begins
}

// now is a channel that is closed when trouble begins, and the trouble that there is.
func (t *trouble) now() (begins <-chan struct{}, records int, reason error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.beginning(), t.records, t.err
}

func (r *Recorder) append(records []ledger.Record) error {
	if r.spool.Size() > int64(r.o.Spool) {
		if r.trim(); r.spool.Size() > int64(r.o.Spool) {
			return r.full()
		}
	}
	return r.spool.Append(records)
}

// full names who keeps the spool full.
func (r *Recorder) full() error {
	if s := r.slowest(); s.Behind > 0 {
		return fmt.Errorf("%w: %s lacks %d records; %s", ErrFull, s.Name, s.Behind, remedy)
	}
	return ErrFull
}

// remedy is what to do about a ledger that takes nothing.
const remedy = "bring it back, or take it out of ledger.backends, which gives up what it lacks"

// slowest is the ledger that lacks most.
func (r *Recorder) slowest() (worst State) {
	head := r.spool.Head().Seq
	for _, f := range r.sinks {
		if s := f.state(head); s.Behind > worst.Behind {
			worst = s
		}
	}
	return worst
}

// high says that the spool is more than half full.
func (r *Recorder) high() bool { return r.spool.Size() > int64(r.o.Spool)/2 }

// warn says once that the spool fills up, and for whom; and, where records is not 0, that
// a ledger lacks that many.
func (r *Recorder) warn(records uint64) {
	high := r.high() || r.warned && r.spool.Size() > int64(r.o.Spool)/4
	if high == r.warned && records == 0 {
		return
	}
	s := r.slowest()
	if s.Behind > 0 && (high && !r.warned || records > 0 && s.Behind >= records) {
		args := []any{"ledger", s.Name, "records", s.Behind, "bytes", r.spool.Size(), "limit", int64(r.o.Spool), "help", remedy}
		if s.Err != nil {
			args = append(args, "error", s.Err)
		}
		r.o.Log.Warn("audit records wait for a ledger; when the spool is full security events are refused", args...)
	}
	r.warned = high
}

// trim removes spool files that every ledger has.
func (r *Recorder) trim() {
	least := r.spool.Head().Seq
	for _, f := range r.sinks {
		least = min(least, f.taken())
	}
	if err := r.spool.Trim(least); err != nil {
		r.o.Log.Warn("audit spool not trimmed", "error", err)
	}
}
