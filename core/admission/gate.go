package admission

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/commucat/commucat/core/metrics"
)

// Refusals. A Gate returns no other errors.
var (
	// ErrRate: the prefix opened too many connections lately.
	ErrRate = errors.New("admission: too many connections from this source")
	// ErrConcurrent: too many unauthenticated connections of the prefix are open.
	ErrConcurrent = errors.New("admission: too many unauthenticated connections from this source")
	// ErrWork: the prefix used up its processing time.
	ErrWork = errors.New("admission: processing time of this source is used up")
	// ErrFull: the relay as a whole has no room for another unauthenticated connection.
	ErrFull = errors.New("admission: too many unauthenticated connections")
	// ErrMemory: the buffers of unauthenticated connections reached their limit.
	ErrMemory = errors.New("admission: buffer limit of unauthenticated connections")
	// ErrBusy: the queue for public-key work is full.
	ErrBusy = errors.New("admission: public-key work is saturated")
)

// Budget is what one prefix may use. Zero fields take the default.
type Budget struct {
	// Rate is connections a second, Burst how many may come at once.
	Rate  float64
	Burst float64
	// Open is the number of unauthenticated connections at one time.
	Open int
	// Work is processing time a second, WorkBurst how much may be used at once.
	Work      time.Duration
	WorkBurst time.Duration
}

// Options set the limits. Zero fields take the default in brackets.
type Options struct {
	// Narrow is the budget of an IPv4 /32 or IPv6 /64, and of a circuit
	// (10/s, burst 60, 128 open, 100 ms/s, burst 1 s).
	Narrow Budget
	// Wide is the budget of an IPv4 /24 or IPv6 /48 (40/s, burst 240, 512 open,
	// 400 ms/s, burst 4 s).
	Wide Budget
	// Transport is the budget of all sources of one transport whose sources are
	// hidden and that names no circuit (100/s, burst 400, 1 024 open, 500 ms/s, burst 5 s).
	Transport Budget
	// Claimed is the budget of all sources together of one transport whose word is
	// all there is for their addresses (a plugin): half of what the whole relay has.
	Claimed Budget
	// Local multiplies the budgets of exactly 127.0.0.1 and ::1, where every
	// client of this machine and of an undeclared local proxy looks alike (256).
	Local float64

	// Rate and Burst bound connections of all sources together (2 000/s, 4 000).
	Rate  float64
	Burst float64
	// Open bounds unauthenticated connections of all sources together (32 768).
	Open int
	// Memory bounds the bytes that Reserve hands out to all of them (512 MiB),
	// MemoryEach to one connection (64 KiB).
	Memory     int64
	MemoryEach int64
	// Prefixes bounds the sources that are remembered while none of their
	// connections is open (65 536).
	Prefixes int
	// Deadline is the time a connection has to authenticate (10 s); each
	// connection gets its own, drawn within ± 10 %.
	Deadline time.Duration

	// KeyWork is the number of handshakes in public-key work at one time (2),
	// KeyQueue how many may wait (2 048: half a second of such work, and the clients
	// of one transport that have lost their connections together), KeyWait for how
	// long (3 s).
	KeyWork  int
	KeyQueue int
	KeyWait  time.Duration

	// Trusted are the proxies whose forwarded headers count.
	Trusted []netip.Prefix

	// Clock is time.Now by default; Metrics may be nil.
	Clock   func() time.Time
	Metrics *metrics.Set
}

func (b Budget) or(d Budget) Budget {
	if b.Rate <= 0 {
		b.Rate = d.Rate
	}
	if b.Burst < 1 {
		b.Burst = max(d.Burst, 1)
	}
	if b.Open <= 0 {
		b.Open = d.Open
	}
	if b.Work <= 0 {
		b.Work = d.Work
	}
	if b.WorkBurst <= 0 {
		b.WorkBurst = d.WorkBurst
	}
	return b
}

func (b Budget) times(f float64) Budget {
	b.Rate *= f
	b.Burst *= f
	b.Open = int(float64(b.Open) * f)
	b.Work = time.Duration(float64(b.Work) * f)
	b.WorkBurst = time.Duration(float64(b.WorkBurst) * f)
	return b
}

func positive[T int | int64 | float64 | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

func (o Options) withDefaults() Options {
	o.Narrow = o.Narrow.or(Budget{10, 60, 128, 100 * time.Millisecond, time.Second})
	o.Wide = o.Wide.or(Budget{40, 240, 512, 400 * time.Millisecond, 4 * time.Second})
	o.Transport = o.Transport.or(Budget{100, 400, 1024, 500 * time.Millisecond, 5 * time.Second})
	o.Local = positive(o.Local, 256)
	o.Rate = positive(o.Rate, 2000)
	o.Burst = positive(o.Burst, 4000)
	o.Open = positive(o.Open, 32768)
	o.Claimed = o.Claimed.or(Budget{o.Rate / 2, o.Burst / 2, max(o.Open/2, 1), time.Second, 5 * time.Second})
	o.Memory = positive(o.Memory, 512<<20)
	o.MemoryEach = positive(o.MemoryEach, 64<<10)
	o.Prefixes = positive(o.Prefixes, 65536)
	o.Deadline = positive(o.Deadline, 10*time.Second)
	o.KeyWork = positive(o.KeyWork, 2)
	o.KeyQueue = positive(o.KeyQueue, 2048)
	o.KeyWait = positive(o.KeyWait, 3*time.Second)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return o
}

// Gate decides who may come in. All methods may be called concurrently.
type Gate struct {
	opt Options

	mu     sync.Mutex
	table  table
	global bucket
	open   int
	memory int64

	keys keyQueue
}

// New makes a Gate.
func New(opt Options) *Gate {
	g := &Gate{opt: opt.withDefaults()}
	g.table.init(g.opt.Prefixes)
	g.global = bucket{level: g.opt.Burst, at: g.opt.Clock()}
	g.keys.init(g)
	return g
}

// Source says where a connection came from.
type Source struct {
	// Transport is the name of the listener's transport.
	Transport string
	// Addr is the client's address; the zero value means unknown.
	Addr netip.Addr
	// Circuit names a hidden source; used only with Hidden.
	Circuit string
	// Hidden says that Addr is not the client's own.
	Hidden bool
	// Claimed says that the address is the transport's own word.
	Claimed bool
}

// Admit charges one connection. The ticket must be released; a refused
// connection should be closed without a word.
func (g *Gate) Admit(src Source) (*Ticket, error) {
	keys, budgets, n := g.sources(src)
	now := g.opt.Clock()
	g.mu.Lock()
	t, err := g.admit(keys[:n], budgets[:n], now)
	g.mu.Unlock()
	if err != nil {
		g.refused(err)
		return nil, err
	}
	t.transport = src.Transport
	t.deadline = now.Add(g.jittered())
	g.opt.Metrics.Move(metrics.ConnectionsUnauthenticated, 1)
	return t, nil
}

// jittered is the deadline within ± 10 %.
func (g *Gate) jittered() time.Duration {
	d := g.opt.Deadline
	return d - d/10 + rand.N(d/5+1)
}

// admit is called with the lock held.
func (g *Gate) admit(keys []key, budgets []Budget, now time.Time) (*Ticket, error) {
	g.global.fill(now, g.opt.Rate, g.opt.Burst)
	pressure := g.pressure()
	t := &Ticket{gate: g}
	for i, k := range keys {
		e := g.table.get(k, budgets[i], now)
		g.table.use(e)
		e.fill(now, pressure)
		t.entries[t.n] = e
		t.n++
	}
	if err := g.charge(t.entries[:t.n], pressure); err != nil {
		for _, e := range t.entries[:t.n] {
			g.table.leave(e)
		}
		return nil, err
	}
	g.open++
	for _, e := range t.entries[:t.n] {
		e.open++
	}
	t.refs, t.holdsOpen = 1, true
	g.opt.Metrics.Set(metrics.AdmissionPrefixes, float64(g.table.len()))
	return t, nil
}

// charge takes one connection, or stream of one, from the rate of its sources, or has
// them pay for the refused attempt.
func (g *Gate) charge(entries []*entry, pressure float64) error {
	if err := g.check(entries, pressure); err != nil {
		for _, e := range entries {
			e.punish(pressure)
		}
		return err
	}
	g.global.level--
	for _, e := range entries {
		e.conns.level--
	}
	return nil
}

func (g *Gate) check(entries []*entry, pressure float64) error {
	for _, e := range entries {
		if err := e.check(pressure); err != nil {
			return err
		}
	}
	if g.open >= g.opt.Open || g.global.level < 1 {
		return ErrFull
	}
	return nil
}

// pressure is 0 while 60 % of the relay's own budget is free and grows to 1 when
// 20 % is: the rest is for sources that used almost nothing of theirs.
func (g *Gate) pressure() float64 {
	used := max(float64(g.open)/float64(g.opt.Open), 1-g.global.level/g.opt.Burst)
	return min(max((used-0.4)/0.4, 0), 1)
}

func (g *Gate) refused(err error) {
	reason := "full"
	switch err {
	case ErrRate:
		reason = "rate"
	case ErrConcurrent:
		reason = "concurrent"
	case ErrWork:
		reason = "work"
	case ErrMemory:
		reason = "memory"
	case ErrBusy:
		reason = "busy"
	}
	g.opt.Metrics.Count(metrics.AdmissionRefused, reason)
	g.opt.Metrics.Inc(metrics.RateLimitConnect)
}

// Stats is a moment's view, for tests and the admin page.
type Stats struct {
	Open     int
	Memory   int64
	Prefixes int
	Waiting  int
	Running  int
}

// Stats returns the present figures.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	s := Stats{Open: g.open, Memory: g.memory, Prefixes: g.table.len()}
	g.mu.Unlock()
	s.Waiting, s.Running = g.keys.stats()
	return s
}
