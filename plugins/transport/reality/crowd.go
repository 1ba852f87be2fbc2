package reality

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// crowd are the exchanges that the cover has, or may get. It is safe for concurrent
// use.
type crowd struct {
	limit int
	// between counts connections that are accepted and not yet in the crowd, or out of it
	// and not yet handed over.
	between atomic.Int64
	bell    bell

	mu      sync.Mutex
	members map[*exchange]struct{}
	closed  bool
}

func newCrowd(limit int) *crowd { return &crowd{limit: limit, members: map[*exchange]struct{}{}} }

// join adds an exchange. When there are too many, the longest silent one of the network
// that has the most is ended, as a busy web server ends idle connections. It is false
// when everything is over.
func (c *crowd) join(x *exchange) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if len(c.members) >= c.limit {
		c.shed()
	}
	x.bell = &c.bell
	c.members[x] = struct{}{}
	return true
}

// shedOne makes room when the process has no descriptors left.
func (c *crowd) shedOne() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shed()
}

func (c *crowd) shed() {
	counts := map[netip.Prefix]int{}
	most := 0
	for x := range c.members {
		p := network(x.source)
		counts[p]++
		most = max(most, counts[p])
	}
	// Who has shown the key is spared while there are others, for as long as a handshake may
	// take: else a few with a link could keep everybody out.
	worse := func(x, y *exchange) bool {
		if a, b := x.spared(), y.spared(); a != b {
			return b
		}
		if a, b := counts[network(x.source)] == most, counts[network(y.source)] == most; a != b {
			return a
		}
		return x.touched.Load() < y.touched.Load()
	}
	var victim *exchange
	for x := range c.members {
		if victim == nil || worse(x, victim) {
			victim = x
		}
	}
	if victim != nil {
		delete(c.members, victim)
		victim.evict()
	}
}

func (c *crowd) part(x *exchange) {
	c.mu.Lock()
	delete(c.members, x)
	c.mu.Unlock()
	c.bell.ring()
}

// Who has begun when the listener is closed may finish, if that is soon.
const (
	closeGrace = 3 * time.Second
	beginTime  = 2 * time.Second
)

// settle returns when nobody is left who may still turn out to be a client, after
// closeGrace, or with ctx.
func (c *crowd) settle(ctx context.Context) {
	end := time.NewTimer(closeGrace)
	defer end.Stop()
	for {
		changed := c.bell.next()
		left := c.begun()
		if left <= 0 {
			return
		}
		young := time.NewTimer(left)
		select {
		case <-changed:
		case <-young.C:
		case <-end.C:
			left = 0
		case <-ctx.Done():
			left = 0
		}
		young.Stop()
		if left == 0 {
			return
		}
	}
}

// begun is how long somebody may still turn out to be a client: who is being answered or
// under way for as long as that takes, who is not known to be a stranger until
// beginTime after it came.
func (c *crowd) begun() (left time.Duration) {
	if c.between.Load() > 0 {
		return closeGrace
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for x := range c.members {
		switch {
		case x.answered():
			return closeGrace
		case mode(x.shown.Load()) == undecided:
			left = max(left, beginTime-time.Since(x.came))
		}
	}
	return left
}

// under changes between.
func (c *crowd) under(n int64) {
	c.between.Add(n)
	c.bell.ring()
}

// bell wakes those who wait for the next change. A nil one is mute; it is safe for
// concurrent use.
type bell struct {
	mu   sync.Mutex
	rung chan struct{} // nil while nobody waits
}

func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

func (b *bell) ring() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}

func (c *crowd) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.members)
}

// close ends all of them and lets no more in.
func (c *crowd) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for x := range c.members {
		x.evict()
	}
}

// network is the part of an address that one party usually has.
func network(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
