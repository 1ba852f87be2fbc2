package audit

import (
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// batch is how many events one fsync may serve.
const batch = 256

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
	}
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
// tried again until Close, while the queue fills and its users begin to wait.
func (r *Recorder) store(records []ledger.Record) error {
	if len(records) == 0 {
		return nil
	}
	for pause := firstPause / 10; ; pause = min(2*pause, longestPause) {
		err := r.append(records)
		full := sdk.KindOf(err) == sdk.Full
		r.full.Store(full)
		if err == nil {
			return nil
		}
		r.o.Log.Error("audit spool not written", "error", err, "again_in", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-r.ending:
			timer.Stop()
			return r.append(records)
		}
	}
}

func (r *Recorder) append(records []ledger.Record) error {
	if r.spool.Size() > int64(r.o.Spool) {
		if r.trim(); r.spool.Size() > int64(r.o.Spool) {
			return ErrFull
		}
	}
	return r.spool.Append(records)
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
