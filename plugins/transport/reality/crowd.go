package reality

import (
	"context"
	"math/rand/v2"
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

	mu       sync.Mutex
	members  []*exchange
	networks map[netip.Prefix]*party
	closed   bool
}

// party are the members of one network.
type party struct {
	network netip.Prefix
	size    int
}

func newCrowd(limit int) *crowd { return &crowd{limit: limit, networks: map[netip.Prefix]*party{}} }

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
	n := network(x.source)
	if c.networks[n] == nil {
		c.networks[n] = &party{network: n}
	}
	x.party = c.networks[n]
	x.party.size++
	x.place = len(c.members)
	c.members = append(c.members, x)
	return true
}

// drop takes a member out; mu is held. It may be out already.
func (c *crowd) drop(x *exchange) {
	if x.party == nil {
		return
	}
	last := c.members[len(c.members)-1]
	c.members[x.place], last.place = last, x.place
	c.members[len(c.members)-1] = nil
	c.members = c.members[:len(c.members)-1]
	if x.party.size--; x.party.size == 0 {
		delete(c.networks, x.party.network)
	}
	x.party = nil
}

// shedOne makes room when the process has no descriptors left.
func (c *crowd) shedOne() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shed()
}

// sampled is how many members are compared to find who gives way: it is done for every
// connection of a flood.
const sampled = 1024

func (c *crowd) shed() {
	if len(c.members) == 0 {
		return
	}
	some := c.members
	if len(some) > sampled {
		from := rand.IntN(len(some) - sampled + 1)
		some = some[from : from+sampled]
	}
	most := 0
	for _, x := range some {
		most = max(most, x.party.size)
	}
	// Who has shown the key is spared while there are others, for as long as a handshake may
	// take: else a few with a link could keep everybody out. So is whoever has not had the
	// time to show it.
	now := time.Now()
	var victim *exchange
	var kept, busiest bool // of the victim
	for _, x := range some {
		k, b := x.spared(now), x.party.size == most
		switch {
		case victim == nil:
		case k != kept:
			if k {
				continue
			}
		case b != busiest:
			if busiest {
				continue
			}
		case x.touched.Load() >= victim.touched.Load():
			continue
		}
		victim, kept, busiest = x, k, b
	}
	c.drop(victim)
	victim.evict()
}

func (c *crowd) part(x *exchange) {
	c.mu.Lock()
	c.drop(x)
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
	for _, x := range c.members {
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
	for _, x := range c.members {
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
