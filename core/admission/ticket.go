package admission

import (
	"context"
	"syscall"
	"time"

	"github.com/commucat/commucat/core/metrics"
)

// Ticket is one admitted connection or stream. A nil Ticket is valid and means
// that nothing is limited (tests, compiled-in callers). All methods may be
// called concurrently.
type Ticket struct {
	gate      *Gate
	transport string
	deadline  time.Time
	entries   [3]*entry
	n         int
	parent    *Ticket

	// The rest is guarded by gate.mu.
	refs      int
	holdsOpen bool
	proven    bool
	opened    bool // its first stream was opened
	memory    int64
	socket    syscall.RawConn
}

type contextKey struct{}

// NewContext returns a context that carries t.
func NewContext(ctx context.Context, t *Ticket) context.Context {
	return context.WithValue(ctx, contextKey{}, t)
}

// FromContext returns the ticket of ctx, or nil.
func FromContext(ctx context.Context) *Ticket {
	if ctx == nil {
		return nil
	}
	t, _ := ctx.Value(contextKey{}).(*Ticket)
	return t
}

// Stream charges one stream of a connection that carries many (HTTP/2, a kept
// alive HTTP/1.1 connection) to the same sources, as Admit does for a connection; the
// first is paid with its connection. It has a deadline of its own.
func (t *Ticket) Stream() (*Ticket, error) { return t.stream(true) }

// Request charges one more request of a stream that was charged: it takes a place
// while it is answered, and nothing of the rate.
func (t *Ticket) Request() (*Ticket, error) { return t.stream(false) }

func (t *Ticket) stream(opens bool) (*Ticket, error) {
	if t == nil {
		return nil, nil
	}
	g, entries := t.gate, t.entries[:t.n]
	now := g.opt.Clock()
	s := &Ticket{gate: g, transport: t.transport, parent: t, refs: 1, holdsOpen: true}
	s.deadline = now.Add(g.jittered())
	g.mu.Lock()
	err := func() error {
		if g.open >= g.opt.Open {
			return ErrFull
		}
		g.global.fill(now, g.opt.Rate, g.opt.Burst)
		pressure := g.pressure()
		for _, e := range entries {
			e.fill(now, pressure)
		}
		if opens && t.opened {
			return g.charge(entries, pressure)
		}
		for _, e := range entries {
			switch {
			case e.open >= e.budget.Open:
				return ErrConcurrent
			case e.work.level <= 0:
				return ErrWork
			}
		}
		return nil
	}()
	if err == nil {
		t.opened = t.opened || opens
		g.open++
		for i, e := range entries {
			s.entries[i] = e
			e.open++
			g.table.use(e)
		}
		s.n = len(entries)
		t.hold()
		s.socket = t.socket
	}
	g.mu.Unlock()
	if err != nil {
		g.refused(err)
		return nil, err
	}
	g.opt.Metrics.Move(metrics.ConnectionsUnauthenticated, 1)
	return s, nil
}

// Deadline is the moment by which the connection must have authenticated; zero
// for a nil ticket.
func (t *Ticket) Deadline() time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.deadline
}

// Authenticated gives back the place among the unauthenticated connections and
// all memory that was reserved, here and on the connection that carries it.
// Repeated calls do nothing.
func (t *Ticket) Authenticated() {
	if t == nil {
		return
	}
	t.gate.mu.Lock()
	freed := 0
	for s := t; s != nil; s = s.parent {
		freed += s.giveBack()
		s.proven = true
	}
	t.gate.mu.Unlock()
	t.gate.opt.Metrics.Move(metrics.ConnectionsUnauthenticated, -freed)
}

// Proven says whether Authenticated was called.
func (t *Ticket) Proven() bool {
	if t == nil {
		return true
	}
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	return t.proven
}

// giveBack is called with the lock held; it returns 1 if a place was freed.
func (t *Ticket) giveBack() int {
	t.gate.memory -= t.memory
	t.memory = 0
	if !t.holdsOpen {
		return 0
	}
	t.holdsOpen = false
	t.gate.open--
	for i := range t.n {
		t.entries[i].open--
	}
	return 1
}

// Hold adds a user of the ticket, who must Release it as well. A ticket that
// was released by all may be held again: unless it has authenticated it takes its
// place anew, so a session that outlives the request which brought it counts.
func (t *Ticket) Hold() {
	if t == nil {
		return
	}
	t.gate.mu.Lock()
	again := t.refs == 0 && !t.proven
	t.hold()
	if again {
		t.holdsOpen = true
		t.gate.open++
		for _, e := range t.entries[:t.n] {
			e.open++
		}
	}
	t.gate.mu.Unlock()
	if again {
		t.gate.opt.Metrics.Move(metrics.ConnectionsUnauthenticated, 1)
	}
}

// hold is called with the lock held; it takes no place.
func (t *Ticket) hold() {
	if t.refs == 0 {
		for _, e := range t.entries[:t.n] {
			t.gate.table.use(e)
		}
		if t.parent != nil {
			t.parent.hold()
		}
	}
	t.refs++
}

// Release ends one use; with the last one everything that the ticket holds is
// given back. More calls than uses do nothing.
func (t *Ticket) Release() {
	if t == nil {
		return
	}
	t.gate.mu.Lock()
	freed := t.release()
	t.gate.mu.Unlock()
	t.gate.opt.Metrics.Move(metrics.ConnectionsUnauthenticated, -freed)
}

func (t *Ticket) release() int {
	if t.refs == 0 {
		return 0
	}
	if t.refs--; t.refs > 0 {
		return 0
	}
	freed := t.giveBack()
	for _, e := range t.entries[:t.n] {
		t.gate.table.leave(e)
	}
	if t.parent != nil {
		freed += t.parent.release()
	}
	return freed
}

// Reserve asks for n bytes of buffer before authentication; ErrMemory refuses.
// An authenticated ticket is not limited here.
func (t *Ticket) Reserve(n int) error {
	if t == nil || n <= 0 {
		return nil
	}
	g := t.gate
	g.mu.Lock()
	err := func() error {
		if t.proven {
			return nil
		}
		if t.memory+int64(n) > g.opt.MemoryEach || g.memory+int64(n) > g.opt.Memory {
			return ErrMemory
		}
		t.memory += int64(n)
		g.memory += int64(n)
		return nil
	}()
	total := g.memory
	g.mu.Unlock()
	if err != nil {
		g.refused(err)
		return err
	}
	g.opt.Metrics.Set(metrics.UnauthenticatedBytes, float64(total))
	return nil
}

// Free gives back up to n reserved bytes before authentication.
func (t *Ticket) Free(n int) {
	if t == nil || n <= 0 {
		return
	}
	t.gate.mu.Lock()
	d := min(int64(n), t.memory)
	t.memory -= d
	t.gate.memory -= d
	t.gate.mu.Unlock()
}

// Spend charges processing time to the ticket's sources. It never refuses: a
// source that has used up its time is refused at its next connection.
func (t *Ticket) Spend(d time.Duration) {
	if t == nil || d <= 0 {
		return
	}
	now := t.gate.opt.Clock()
	t.gate.mu.Lock()
	for i := range t.n {
		e := t.entries[i]
		e.fill(now, t.gate.pressure())
		e.work.level = max(e.work.level-d.Seconds(), -e.budget.WorkBurst.Seconds())
	}
	t.gate.mu.Unlock()
}

// SetSocket tells the ticket the kernel socket that carries the connection.
func (t *Ticket) SetSocket(c syscall.RawConn) {
	if t == nil {
		return
	}
	t.gate.mu.Lock()
	t.socket = c
	t.gate.mu.Unlock()
}
