package reality

import (
	"net/netip"
	"sync"
	"time"
)

// crowd are the exchanges that the cover has, or may get. It is safe for concurrent
// use.
type crowd struct {
	limit int

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
	// Who has shown the key is spared while there are others.
	worse := func(x, y *exchange) bool {
		if a, b := x.answered(), y.answered(); a != b {
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
	defer c.mu.Unlock()
	delete(c.members, x)
}

// begun reports whether somebody may still turn out to be a client: who has come no
// longer ago than young and is not known to be a stranger, or is being answered.
func (c *crowd) begun(young time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for x := range c.members {
		if x.answered() || mode(x.shown.Load()) == undecided && time.Since(x.came) < young {
			return true
		}
	}
	return false
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
