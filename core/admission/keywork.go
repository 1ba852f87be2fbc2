package admission

import (
	"context"
	"sync"
	"time"

	"github.com/commucat/commucat/core/metrics"
)

// Rank is what a handshake has shown when it asks for public-key work. A higher one
// goes first, and when the queue is full it pushes out one of a lower rank.
type Rank uint8

// The ranks are sums of these; 0 is a stranger's first step.
const (
	// Begun is a later step of a handshake whose first one was done: work that was
	// paid for is not thrown away for work that is not.
	Begun Rank = 1 << iota
	// Entered has shown a good entry token.
	Entered

	ranks = 4
)

// keyQueue bounds public-key work: a few handshakes at a time, a bounded number
// waiting.
type keyQueue struct {
	gate    *Gate
	mu      sync.Mutex
	running int
	waiting int
	queues  [ranks]waitList
}

// waiter is a place in the queue. ready gets nil when the work may start, or
// the refusal.
type waiter struct {
	ready      chan error
	wide       *entry
	prev, next *waiter
	queued     bool
}

type waitList struct {
	head waiter // sentinel
	n    int
}

func (l *waitList) push(w *waiter) {
	last := l.head.prev
	last.next, w.prev = w, last
	w.next, l.head.prev = &l.head, w
	w.queued = true
	l.n++
}

func (l *waitList) remove(w *waiter) {
	w.prev.next, w.next.prev = w.next, w.prev
	w.prev, w.next, w.queued = nil, nil, false
	l.n--
}

func (l *waitList) oldest() *waiter {
	if l.n == 0 {
		return nil
	}
	return l.head.next
}

func (q *keyQueue) init(g *Gate) {
	q.gate = g
	for i := range q.queues {
		h := &q.queues[i].head
		h.prev, h.next = h, h
	}
}

func (q *keyQueue) stats() (waiting, running int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting, q.running
}

// KeyWork waits for a turn at public-key work and returns the function that
// ends it, which must be called once. It returns ErrBusy at once when the queue is
// full, after Options.KeyWait, or when a handshake of a higher rank takes the
// place; the context's error when that ends first.
func (g *Gate) KeyWork(ctx context.Context, t *Ticket, lane Rank) (done func(), err error) {
	q := &g.keys
	start := time.Now()
	q.mu.Lock()
	if q.running < g.opt.KeyWork && q.waiting == 0 {
		q.running++
		q.report()
		q.mu.Unlock()
		return q.finisher(t), nil
	}
	w := &waiter{ready: make(chan error, 1), wide: t.widest()}
	if !q.place(lane, w) {
		q.mu.Unlock()
		g.refused(ErrBusy)
		return nil, ErrBusy
	}
	q.report()
	q.mu.Unlock()

	timer := time.NewTimer(g.opt.KeyWait)
	defer timer.Stop()
	select {
	case err = <-w.ready:
	case <-ctx.Done():
		err = q.leave(lane, w, ctx.Err())
	case <-timer.C:
		err = q.leave(lane, w, ErrBusy)
	}
	if err != nil {
		g.refused(ErrBusy)
		return nil, err
	}
	g.opt.Metrics.Since(metrics.KeyWorkWaitSeconds, start)
	return q.finisher(t), nil
}

// place queues w, pushing out the oldest of the lowest rank if that is lower than
// w's. One wide prefix may hold a quarter of the places for strangers' first steps.
func (q *keyQueue) place(lane Rank, w *waiter) bool {
	limit := q.gate.opt.KeyQueue
	if lane == 0 && w.wide != nil {
		same := 0
		for o := q.queues[0].head.next; o != &q.queues[0].head; o = o.next {
			if o.wide == w.wide {
				same++
			}
		}
		if same >= max(limit/4, 1) {
			return false
		}
	}
	if q.waiting >= limit && !q.pushOut(lane) {
		return false
	}
	q.queues[lane].push(w)
	q.waiting++
	return true
}

// pushOut makes room for one of the rank given.
func (q *keyQueue) pushOut(lane Rank) bool {
	for low := range lane {
		if out := q.queues[low].oldest(); out != nil {
			q.take(low, out)
			out.ready <- ErrBusy
			return true
		}
	}
	return false
}

func (q *keyQueue) take(lane Rank, w *waiter) {
	q.queues[lane].remove(w)
	q.waiting--
}

// leave takes w out after a timeout; if its turn came in the same moment, it
// is passed on.
func (q *keyQueue) leave(lane Rank, w *waiter, cause error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.queued {
		q.take(lane, w)
		q.report()
		return cause
	}
	if err := <-w.ready; err != nil {
		return err
	}
	q.next()
	return cause
}

// next ends one piece of work and starts the next; called with the lock held.
func (q *keyQueue) next() {
	q.running--
	for lane := len(q.queues) - 1; lane >= 0; lane-- {
		if w := q.queues[lane].oldest(); w != nil {
			q.take(Rank(lane), w)
			q.running++
			w.ready <- nil
			break
		}
	}
	q.report()
}

func (q *keyQueue) report() {
	m := q.gate.opt.Metrics
	m.Set(metrics.KeyWorkWaiting, float64(q.waiting))
	m.Set(metrics.KeyWorkRunning, float64(q.running))
}

func (q *keyQueue) finisher(t *Ticket) func() {
	began := time.Now()
	return sync.OnceFunc(func() {
		t.Spend(time.Since(began))
		q.mu.Lock()
		q.next()
		q.mu.Unlock()
	})
}

func (t *Ticket) widest() *entry {
	if t == nil || t.n == 0 {
		return nil
	}
	return t.entries[t.n-1]
}
