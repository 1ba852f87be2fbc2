package bind

import (
	"maps"
	"net"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

const (
	// gateLimit is how many initiations wait; from gateLoad on the gate is under
	// load, for gateCalm after it was last.
	gateLimit = 1024
	gateLoad  = gateLimit / 8
	gateCalm  = time.Second
	// gateOpen is how many initiations WireGuard has at once: it counts itself
	// under load from 128 on.
	gateOpen = 64
	// gatePatience is how long an answer is waited for.
	gatePatience = 250 * time.Millisecond
	// gateSpace is longer than WireGuard ignores a peer's initiations after the one
	// before: 20 ms from when it took that one, which is later than it was handed
	// over. Ignored, the newest one would not be answered, and the peer would take no
	// answer to an older one.
	gateSpace = 60 * time.Millisecond
	// gateStorm is how many initiations a second keep the gate under load, however
	// short the queue is: those without a cookie cost little only then.
	gateStorm = 1000
)

// request is an initiation that waits, with the wire's type word and MACs.
type request struct {
	msg  [obfs.InitiationSize]byte
	from *Endpoint
}

// gate is the way of initiations to WireGuard.
type gate struct {
	b     *Bind
	queue chan request
	inner chan request // for WireGuard
	late  chan *peer   // whose held initiation is due
	paces map[*peer]*pace
	mac   *obfs.MAC

	mu        sync.Mutex
	loadUntil time.Time
	storm     allowance // full again when no more than gateStorm a second come
	budget    budget
	replies   replies
	taken     map[uint32]waiting // by the sender's index, what WireGuard has
	freed     chan struct{}
}

// pace is when WireGuard got a peer's last initiation, and the one that is held because
// that was a moment ago. It belongs to the goroutine of run.
type pace struct {
	last time.Time
	held *request
}

// waiting is an initiation that WireGuard has and has not answered.
type waiting struct {
	peer  *peer
	until time.Time
}

func newGate(b *Bind) *gate {
	return &gate{
		b: b, queue: make(chan request, gateLimit), inner: make(chan request, gateOpen), late: make(chan *peer), paces: map[*peer]*pace{},
		mac: obfs.NewMAC(b.macKey), taken: map[uint32]waiting{}, freed: make(chan struct{}, 1),
	}
}

// run works until closed.
func (g *gate) run(closed <-chan struct{}) {
	for {
		select {
		case <-closed:
			return
		case r := <-g.queue:
			g.pass(closed, r)
		case p := <-g.late:
			r := g.paces[p].held
			g.paces[p].held = nil
			g.hand(closed, *r, p)
		}
	}
}

// receive hands initiations to WireGuard.
func (g *gate) receive(closed <-chan struct{}, packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	select {
	case <-closed:
		return 0, net.ErrClosed
	case r := <-g.inner:
		sizes[0], eps[0] = copy(packets[0], r.msg[:]), r.from
		return 1, nil
	}
}

// offer takes an initiation with a good MAC1, or drops it. Under load it must show
// the cookie of its source, and sources have a budget.
func (g *gate) offer(msg []byte, from *Endpoint) {
	if g.underLoad() {
		if !g.b.oven.Check(msg, from.addr) {
			g.mu.Lock()
			ok := g.replies.take(from.addr, g.b.o.Now())
			g.mu.Unlock()
			if !ok {
				g.b.stats.Dropped.Add(1)
				return
			}
			g.b.stats.Cookies.Add(1)
			g.deny(msg, from)
			return
		}
		g.mu.Lock()
		ok := g.budget.take(from.addr.Addr(), g.b.o.Now())
		g.mu.Unlock()
		if !ok {
			g.b.stats.Dropped.Add(1)
			return
		}
	}
	r := request{from: from}
	copy(r.msg[:], msg)
	select {
	case g.queue <- r:
	default:
		g.b.stats.Dropped.Add(1)
	}
}

func (g *gate) underLoad() bool {
	now := g.b.o.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	calm := g.storm.take(gateStorm, gateStorm/10, now)
	loaded := now.Before(g.loadUntil)
	if len(g.queue) >= gateLoad || loaded && !calm {
		g.loadUntil, loaded = now.Add(gateCalm), true
	}
	return loaded
}

// deny sends a cookie reply.
func (g *gate) deny(msg []byte, to *Endpoint) {
	s := g.b.sockets[to.socket]
	reply := g.b.oven.Reply(msg, to.addr)
	obfs.SetType(reply, s.params.Type[obfs.Cookie].Pick())
	// Best effort: the stranger may ask again.
	_ = s.send(to, 0, [][]byte{s.params.Handshake(obfs.Cookie, reply)}, nil)
}

// pass opens an initiation and hands it on if its sender may come.
func (g *gate) pass(closed <-chan struct{}, r request) {
	opened, ok := g.b.reader.Static(r.msg[:])
	if !ok {
		g.b.stats.Forged.Add(1)
		return
	}
	p := g.b.peers.get(opened.Static)
	if p == nil && !g.b.o.Guard.Known(opened.Static) {
		g.b.stats.Strangers.Add(1)
		return
	}
	var shared [32]byte
	if p != nil {
		shared = p.shared
	} else {
		var err error
		if shared, err = g.b.reader.Shared(opened.Static); err != nil {
			return
		}
	}
	stamp, ok := g.b.reader.Time(r.msg[:], opened, shared)
	if !ok {
		g.b.stats.Forged.Add(1)
		return
	}
	if !g.b.o.Guard.Admit(opened.Static, stamp, r.from) {
		g.b.stats.Refused.Add(1)
		return
	}
	if p = g.b.peers.get(opened.Static); p == nil {
		return // removed meanwhile
	}
	g.b.peers.seen(p, r.from.addr)
	w := g.paceOf(p)
	if w.held != nil { // it waits; this one is newer
		*w.held = r
		return
	}
	if left := gateSpace - g.b.o.Now().Sub(w.last); left > 0 && left <= gateSpace {
		w.held = &r
		time.AfterFunc(left, func() {
			select {
			case g.late <- p:
			case <-closed:
			}
		})
		return
	}
	g.hand(closed, r, p)
}

// paceOf gives a peer's pace. Those that mean nothing any more are forgotten now and then.
func (g *gate) paceOf(p *peer) *pace {
	w := g.paces[p]
	if w == nil {
		if len(g.paces) >= gateLimit {
			now := g.b.o.Now()
			maps.DeleteFunc(g.paces, func(_ *peer, w *pace) bool { return w.held == nil && now.Sub(w.last) > gateSpace })
		}
		w = new(pace)
		g.paces[p] = w
	}
	return w
}

// hand gives an initiation to WireGuard.
func (g *gate) hand(closed <-chan struct{}, r request, p *peer) {
	if !g.wait(closed, r.msg[:], p) {
		return
	}
	obfs.SetType(r.msg[:], 1)
	g.mac.Sign(r.msg[:])
	g.b.stats.Admitted.Add(1)
	select {
	case g.inner <- r:
		g.paceOf(p).last = g.b.o.Now()
	case <-closed:
	}
}

// wait takes one of the gateOpen places.
func (g *gate) wait(closed <-chan struct{}, msg []byte, p *peer) bool {
	for {
		now := g.b.o.Now()
		next := now.Add(gatePatience)
		g.mu.Lock()
		for index, w := range g.taken {
			if !now.Before(w.until) {
				delete(g.taken, index)
			} else if w.until.Before(next) {
				next = w.until
			}
		}
		if len(g.taken) < gateOpen {
			g.taken[obfs.Sender(msg)] = waiting{p, now.Add(gatePatience)}
			g.mu.Unlock()
			return true
		}
		g.mu.Unlock()
		timer := time.NewTimer(next.Sub(now))
		select {
		case <-closed:
			timer.Stop()
			return false
		case <-g.freed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// answered gives the peer whose initiation a response of WireGuard's answers, and
// frees its place.
func (g *gate) answered(response []byte) *peer {
	g.mu.Lock()
	defer g.mu.Unlock()
	index := obfs.Receiver(response)
	w, ok := g.taken[index]
	if !ok || !w.peer.owns(response) {
		return nil
	}
	delete(g.taken, index)
	select {
	case g.freed <- struct{}{}:
	default:
	}
	return w.peer
}
