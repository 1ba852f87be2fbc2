package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

const (
	batchBytes  = 4 << 20 // of sealed payloads in one Append; one larger row alone
	batchMarks  = 256
	appendLimit = 30 * time.Second
	retryFirst  = 20 * time.Millisecond
	retryMost   = 500 * time.Millisecond
	keepBuffer  = 8 << 20
)

// lane commits the rows of its queues, in the order in which they were put in.
// One goroutine runs it; what gathers while a batch is being stored is the next
// batch.
type lane struct {
	h *Hub

	mu      sync.Mutex
	pending []row
	marks   []*sender
	wake    chan struct{}

	// Of the goroutine.
	vault   *vault
	buf     []byte
	spans   []int // end of each payload in buf
	rows    []storage.Append
	taken   []row
	batch   []row
	senders []*sender
	markBuf []storage.Mark
	touched []*Link
	at      time.Time // when the last batch was stored
}

func newLane(h *Hub) *lane {
	return &lane{h: h, wake: make(chan struct{}, 1), vault: newVault(h.opt.StorageKey, h.opt.Rand)}
}

// put appends rows of one message for a run of recipients of this lane.
func (l *lane) put(f *flight, rs []*recipient) {
	l.mu.Lock()
	idle := len(l.pending) == 0
	for _, r := range rs {
		l.pending = append(l.pending, row{f, r})
	}
	l.mu.Unlock()
	l.h.waiting.Add(int64(len(rs)))
	if idle {
		l.signal()
	}
}

func (l *lane) putMarks(s *sender) {
	l.mu.Lock()
	l.marks = append(l.marks, s)
	l.mu.Unlock()
	l.signal()
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run commits until ctx ends, then what is left, once.
func (l *lane) run(ctx context.Context) {
	for {
		if l.take() {
			l.commitTaken(ctx)
			continue
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			l.finish(ctx)
			return
		}
	}
}

// finish commits what is left; failing batches are not repeated once ctx has
// ended.
func (l *lane) finish(ctx context.Context) {
	for l.take() {
		l.commitTaken(ctx)
	}
}

func (l *lane) take() bool {
	l.mu.Lock()
	l.taken, l.pending = l.pending, l.taken[:0]
	n := min(len(l.marks), batchMarks)
	l.senders = append(l.senders[:0], l.marks[:n]...)
	rest := copy(l.marks, l.marks[n:])
	clear(l.marks[rest:])
	l.marks = l.marks[:rest]
	l.mu.Unlock()
	if n := len(l.taken); n > 0 {
		l.h.metrics.Waiting(int(l.h.waiting.Add(-int64(n))))
	}
	return len(l.taken) > 0 || len(l.senders) > 0
}

func (l *lane) commitTaken(ctx context.Context) {
	todo := l.taken
	for len(todo) > 0 || len(l.senders) > 0 {
		n := l.build(todo)
		ok := l.store(ctx)
		if !ok {
			// Everything taken and everything waiting fails together: the senders
			// repeat in order.
			l.failMarks()
			l.unknown()
			l.fail(l.batch)
			l.fail(todo[n:])
			l.mu.Lock()
			waiting := l.pending
			l.pending = nil
			l.mu.Unlock()
			l.h.waiting.Add(-int64(len(waiting)))
			l.fail(waiting)
			l.flushAcks()
			break
		}
		todo = todo[n:]
	}
	clear(l.taken)
	clear(l.batch)
	if cap(l.buf) > keepBuffer {
		l.buf = nil
	}
}

// build seals as many rows as one batch takes and says how many of todo it
// consumed. Stale rows are failed and left out.
func (l *lane) build(todo []row) int {
	l.buf, l.spans, l.batch = l.buf[:0], l.spans[:0], l.batch[:0]
	n := 0
	for _, r := range todo {
		if len(l.batch) == l.h.opt.Traits.Batch {
			break
		}
		size := r.f.env.size() + sealOverhead
		if len(l.batch) > 0 && len(l.buf)+size > batchBytes {
			break
		}
		n++
		if r.f.stale() {
			l.settleFailed(r)
			continue
		}
		if !l.seal(r) {
			l.settle(r, storage.Appended{Err: errEnvelope})
			continue
		}
		l.batch = append(l.batch, r)
	}
	l.rows = l.rows[:0]
	start := 0
	for i, r := range l.batch {
		id := r.f.id
		l.rows = append(l.rows, storage.Append{Queue: r.r.device, ID: id, Payload: l.buf[start:l.spans[i]:l.spans[i]], Expires: r.f.expires})
		start = l.spans[i]
	}
	l.markBuf = l.markBuf[:0]
	for _, s := range l.senders {
		if m, ok := s.mark(); ok {
			l.markBuf = append(l.markBuf, m)
		}
	}
	return n
}

func (l *lane) seal(r row) bool {
	e := r.f.env
	if r.r.own {
		e.flags |= FlagOwnCopy
	}
	b, err := l.vault.appendSealed(l.buf, &e, r.r.device, r.f.id)
	if err != nil {
		l.h.log.Error("seal", "queue", r.r.device, "error", err)
		return false
	}
	l.buf = b
	l.spans = append(l.spans, len(b))
	return true
}

// store commits the built batch, repeating it unchanged while it fails. false:
// given up.
func (l *lane) store(ctx context.Context) bool {
	if len(l.rows) == 0 && len(l.markBuf) == 0 {
		l.markedAll()
		l.flushAcks()
		return true
	}
	begin := l.h.now()
	deadline := begin.Add(l.h.opt.Limits.GiveUp)
	wait := retryFirst
	for {
		now := l.h.now()
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendLimit)
		res, err := l.h.queues.Append(call, now, storage.Batch{Rows: l.rows, Marks: l.markBuf, Quota: l.h.opt.Limits.Queue})
		cancel()
		if err == nil && len(res) < len(l.rows) {
			err = errors.New("relay: the store answered fewer rows than asked")
		}
		if err == nil {
			l.at = l.h.now()
			l.h.outage.works(l.at)
			l.committed(res, l.at.Sub(begin))
			return true
		}
		l.h.metrics.CommitFailed()
		l.h.outage.fails(now, err)
		if ctx.Err() != nil || !now.Add(wait).Before(deadline) {
			return false
		}
		l.pause(ctx, wait/2+rand.N(wait/2+1))
		wait = min(2*wait, retryMost)
	}
}

func (l *lane) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (l *lane) committed(res []storage.Appended, took time.Duration) {
	l.h.metrics.Committed(len(l.rows), len(l.buf), took.Seconds())
	l.markedAll()
	// A row that was there already may lie before positions of this very batch
	// (an earlier attempt stored it, and its neighbour was deleted since): then
	// the order of the queue is what storage says.
	for i, r := range l.batch {
		if res[i].Duplicate {
			if link := l.h.link(r.r.device); link != nil {
				link.reread()
			}
		}
	}
	for i, r := range l.batch {
		l.settle(r, res[i])
	}
	l.flushAcks()
	l.h.bus.flush()
}

func (l *lane) markedAll() {
	for _, s := range l.senders {
		s.marked(l.h)
	}
	l.senders = l.senders[:0]
}

// settle ends a row: stored, or refused for good.
func (l *lane) settle(r row, res storage.Appended) {
	f := r.f
	switch {
	case res.Err != nil:
		if !r.r.copy {
			code := ccp.CodeGone
			if errors.Is(res.Err, storage.ErrFull) {
				code = ccp.CodeFull
			}
			f.refuse(r.r.device, code)
			l.h.metrics.Refused(code)
		}
	default:
		if f.moved != nil {
			f.moved.done(l.h)
		}
		if !r.r.copy {
			f.mu.Lock()
			f.stored++
			f.mu.Unlock()
		}
		if link := l.h.link(r.r.device); link != nil {
			link.stored(f, r.r, res.Position)
			if !f.arrived.IsZero() { // a sender's, not a row moved or the relay's own word
				l.h.metrics.Handed(max(0, l.at.Sub(f.arrived).Seconds()))
			}
		} else {
			l.h.away(r.r.device, res.Position)
		}
	}
	l.settled(r)
}

// settled counts a row and ends its message with the last one.
func (l *lane) settled(r row) {
	f := r.f
	if !r.r.copy && f.left.Add(-1) == 0 {
		switch {
		case f.link != nil && f.link.finished(f, l.at):
			l.touched = append(l.touched, f.link)
		case f.then != nil:
			f.then(f.result())
		}
	}
	f.release()
}

// settleFailed ends a row that was not stored for a passing reason.
func (l *lane) settleFailed(r row) {
	if !r.r.copy && !r.f.failed.Swap(true) && r.f.link != nil {
		r.f.link.failed(r.f)
	}
	l.settled(r)
}

func (l *lane) fail(rows []row) {
	for _, r := range rows {
		l.settleFailed(r)
	}
}

// unknown makes the recipients of a batch that was given up read from storage:
// its rows may have been stored all the same, and must not be passed over by
// later ones.
func (l *lane) unknown() {
	for _, r := range l.batch {
		if link := l.h.link(r.r.device); link != nil {
			link.reread()
		}
	}
}

func (l *lane) failMarks() {
	for _, s := range l.senders {
		s.mu.Lock()
		s.queued = false
		s.mu.Unlock()
		l.h.markLater(s)
	}
	l.senders = l.senders[:0]
}

func (l *lane) flushAcks() {
	for i, link := range l.touched {
		link.flushAcks()
		l.touched[i] = nil
	}
	l.touched = l.touched[:0]
}
