package admission

import (
	"net/netip"
	"time"
)

// key names a source: transport, class and either a prefix or a circuit.
type key struct {
	transport string
	class     class
	addr      netip.Addr // masked
	circuit   string
}

type class uint8

const (
	narrow class = iota + 1
	wide
	circuit
	whole
	claimed
)

const maxCircuit = 128

// sources gives the keys of a source, narrow first. A transport that only claims
// addresses has a budget for all of them as well: inventing more gains nothing.
func (g *Gate) sources(src Source) (keys [3]key, budgets [3]Budget, n int) {
	keys, budgets, n = g.places(src)
	if src.Claimed {
		keys[n], budgets[n] = key{transport: src.Transport, class: claimed}, g.opt.Claimed
		n++
	}
	return keys, budgets, n
}

func (g *Gate) places(src Source) (keys [3]key, budgets [3]Budget, n int) {
	a := src.Addr.Unmap().WithZone("")
	switch {
	case src.Hidden && src.Circuit != "":
		c := src.Circuit
		if len(c) > maxCircuit {
			c = c[:maxCircuit]
		}
		keys[0] = key{transport: src.Transport, class: circuit, circuit: c}
		keys[1] = key{transport: src.Transport, class: whole}
		budgets[0], budgets[1] = g.opt.Narrow, g.opt.Transport
		return keys, budgets, 2
	case src.Hidden || !a.IsValid():
		keys[0] = key{transport: src.Transport, class: whole}
		budgets[0] = g.opt.Transport
		return keys, budgets, 1
	}
	if !src.Claimed && trusts(g.opt.Trusted, a) { // its clients are charged one by one, see Client
		return keys, budgets, 0
	}
	near, far := 32, 24
	if a.Is6() {
		near, far = 64, 48
	}
	keys[0] = key{transport: src.Transport, class: narrow, addr: mask(a, near)}
	keys[1] = key{transport: src.Transport, class: wide, addr: mask(a, far)}
	budgets[0], budgets[1] = g.opt.Narrow, g.opt.Wide
	if a == local4 || a == local6 {
		budgets[0], budgets[1] = g.opt.Narrow.times(g.opt.Local), g.opt.Wide.times(g.opt.Local)
		keys[1].class, keys[1].addr = narrow, a // never shared with the rest of 127.0.0.0/24
		keys[1].circuit = "local"
	}
	return keys, budgets, 2
}

var (
	local4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	local6 = netip.IPv6Loopback()
)

func mask(a netip.Addr, bits int) netip.Addr {
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr()
}

// bucket is a token bucket; level may be negative.
type bucket struct {
	level float64
	at    time.Time
}

func (b *bucket) fill(now time.Time, rate, burst float64) {
	if d := now.Sub(b.at); d > 0 {
		b.level = min(b.level+d.Seconds()*rate, burst)
		b.at = now
	}
}

// entry is one source's account.
type entry struct {
	key    key
	budget Budget
	conns  bucket
	work   bucket // seconds of processing
	open   int
	refs   int // tickets that point here; an entry in use is never evicted

	prev, next *entry // in the table's list of unused entries, oldest first
}

// fill refills the buckets; under pressure the allowance for connections comes
// back at a tenth of its speed.
func (e *entry) fill(now time.Time, pressure float64) {
	e.conns.fill(now, e.budget.Rate*(1-0.9*pressure), e.budget.Burst)
	e.work.fill(now, e.budget.Work.Seconds(), e.budget.WorkBurst.Seconds())
}

// check asks for more of an unused budget the higher the pressure is: at 1 only
// sources that have used almost nothing of theirs come in.
func (e *entry) check(pressure float64) error {
	need := 1 + pressure*(e.budget.Burst*0.95-1)
	room := float64(e.budget.Open) * (1 - 0.9*pressure)
	switch {
	case e.conns.level < max(need, 1):
		return ErrRate
	case float64(e.open) >= max(room, 1):
		return ErrConcurrent
	case e.work.level <= 0:
		return ErrWork
	}
	return nil
}

// punish charges a refused attempt while the relay is under pressure, down to
// one burst below nothing, so that a flood does not refill its own allowance.
func (e *entry) punish(pressure float64) {
	if pressure > 0 {
		e.conns.level = max(e.conns.level-1, -e.budget.Burst)
	}
}

// table remembers sources. Unused entries form a list in order of last use; the
// oldest goes when there are too many of them. Entries in use are as many as the
// connections at hand allow, two each: a relay with more clients than the table
// remembers still counts every source.
type table struct {
	limit   int // of unused entries
	idle    int // unused entries
	entries map[key]*entry
	unused  entry // sentinel
}

func (t *table) init(limit int) {
	t.limit = limit
	t.entries = make(map[key]*entry)
	t.unused.prev, t.unused.next = &t.unused, &t.unused
}

func (t *table) len() int { return len(t.entries) }

// get returns the entry for k, made with a full budget when new.
func (t *table) get(k key, b Budget, now time.Time) *entry {
	if e := t.entries[k]; e != nil {
		if e.refs == 0 {
			t.unlink(e)
			t.push(e)
		}
		return e
	}
	if old := t.unused.next; t.idle >= t.limit && old != &t.unused {
		t.unlink(old)
		delete(t.entries, old.key)
	}
	e := &entry{
		key: k, budget: b,
		conns: bucket{level: b.Burst, at: now},
		work:  bucket{level: b.WorkBurst.Seconds(), at: now},
	}
	t.entries[k] = e
	t.push(e)
	return e
}

func (t *table) push(e *entry) {
	last := t.unused.prev
	last.next, e.prev = e, last
	e.next, t.unused.prev = &t.unused, e
	t.idle++
}

func (t *table) unlink(e *entry) {
	if e.next == nil {
		return
	}
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
	t.idle--
}

func (t *table) use(e *entry) {
	if e.refs == 0 {
		t.unlink(e)
	}
	e.refs++
}

func (t *table) leave(e *entry) {
	if e.refs--; e.refs > 0 || t.entries[e.key] != e {
		return
	}
	t.push(e)
	if old := t.unused.next; t.idle > t.limit {
		t.unlink(old)
		delete(t.entries, old.key)
	}
}
