package relay

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// everyNode is the topic that all nodes listen to, besides their own name.
	everyNode = "*"
	// maxWakes bounds the devices whose wake waits for the bus; of more than these
	// every node looks after all its own.
	maxWakes = 1 << 16
	// maxNotices bounds the other messages that wait for the bus.
	maxNotices = 4096
	// busCall bounds one call of the volatile store.
	busCall = 2 * time.Second
	// missedTicks without an answer mean that the bus is down.
	missedTicks = 3
	busRetry    = 100 * time.Millisecond
)

var errBusSilent = errors.New("relay: the bus between the nodes does not answer; messages of other nodes come with the next look into storage")

// bus tells other nodes what concerns devices that are connected there. It is best
// effort, and so nothing rests on it alone: each node sends itself ticks through it,
// and while they do not come back it looks into storage once a tick. A wake that was
// lost unnoticed is made good by the look that goes with every renewal.
//
// With a store of one node it does nothing.
type bus struct {
	h    *Hub
	run  [8]byte // this run of this node, as ticks tell it
	work chan struct{}
	look chan struct{}
	find chan struct{} // a look into storage is due
	eph  chan ephemeralJob

	mu       sync.Mutex
	wakes    map[string]struct{}
	everyone bool     // there were too many wakes
	notices  [][]byte // for every node
	dropped  int      // notices since the last look at it
	tick     bool     // one is due
	heard    [2]time.Time
	up       bool
	renew    bool // the next look into storage begins with the routes
}

type ephemeralJob struct {
	devices []string
	own     []bool
	env     envelope
}

func newBus(h *Hub) *bus {
	return &bus{
		h: h, work: make(chan struct{}, 1), look: make(chan struct{}, 1), find: make(chan struct{}, 1), eph: make(chan ephemeralJob, 1024),
		wakes: map[string]struct{}{},
	}
}

func (b *bus) on() bool {
	return b.h.opt.Traits.Shared && b.h.opt.Store.Bus != nil && b.h.opt.Store.Routes != nil
}

func (b *bus) topics() [2]string { return [2]string{b.h.opt.Node, everyNode} }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// stored notes a row for a device that is not connected here.
func (b *bus) stored(device string) {
	if !b.on() {
		return
	}
	b.mu.Lock()
	b.addWake(device)
	b.mu.Unlock()
}

// addWake: mu is held.
func (b *bus) addWake(device string) {
	if b.everyone {
		return
	}
	if len(b.wakes) == maxWakes {
		b.everyone = true
		clear(b.wakes)
		return
	}
	b.wakes[device] = struct{}{}
}

// flush sends what a batch has gathered.
func (b *bus) flush() {
	if b.on() {
		poke(b.work)
	}
}

// notice sends a message to every node, if need be once the bus is back.
func (b *bus) notice(kind byte, body []byte) {
	if !b.on() {
		return
	}
	m, err := b.seal(kind, body)
	if err != nil {
		b.h.log.Error("seal for the bus", "error", err)
		return
	}
	b.mu.Lock()
	b.addNotice(m)
	b.mu.Unlock()
	poke(b.work)
}

// addNotice: mu is held.
func (b *bus) addNotice(m []byte) {
	if len(b.notices) == maxNotices {
		b.notices = b.notices[:copy(b.notices, b.notices[1:])]
		b.dropped++
	}
	b.notices = append(b.notices, m)
}

// ephemeral passes a message on to recipients that are connected elsewhere.
func (b *bus) ephemeral(rt *route, e *envelope) {
	if !b.on() {
		return
	}
	job := ephemeralJob{env: *e}
	for _, r := range rt.to {
		if b.h.link(r.device) == nil {
			job.devices = append(job.devices, r.device)
			job.own = append(job.own, r.own)
		}
	}
	if len(job.devices) == 0 {
		return
	}
	job.env.body = append([]byte(nil), e.body...)
	select {
	case b.eph <- job:
	default:
	}
}

func (b *bus) start(ctx context.Context, wg *sync.WaitGroup) {
	if !b.on() {
		return
	}
	for i := range b.topics() {
		wg.Go(func() { b.subscribe(ctx, i) })
	}
	wg.Go(func() { b.publishAlways(ctx) })
	wg.Go(func() { b.watch(ctx) })
	wg.Go(func() { b.findAlways(ctx) })
}

func (b *bus) subscribe(ctx context.Context, i int) {
	wait := busRetry
	for ctx.Err() == nil {
		began := b.h.now()
		err := b.h.opt.Store.Bus.Subscribe(ctx, b.topics()[i], func(m []byte) { b.receive(ctx, i, m) })
		if ctx.Err() != nil {
			return
		}
		b.mu.Lock()
		b.heard[i] = time.Time{}
		b.mu.Unlock()
		poke(b.look)
		b.h.log.Warn("bus", "error", err)
		if b.h.now().Sub(began) > time.Minute {
			wait = busRetry
		}
		b.h.sleep(ctx, wait)
		wait = min(2*wait, busCall)
	}
}

func (b *bus) publishAlways(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			// The last batches of a relay that is stopped in order.
			b.publish(context.WithoutCancel(ctx))
			return
		case <-b.work:
			b.publish(ctx)
		case job := <-b.eph:
			b.publishEphemeral(ctx, &job)
		}
	}
}

// watch sends the ticks, and has storage looked into while they do not come back. It
// waits for neither store: a slow one would look like a bus that is down.
func (b *bus) watch(ctx context.Context) {
	every := b.h.opt.Limits.BusTick
	began := b.h.now()
	told := false // that it is down
	next := time.NewTimer(0)
	defer next.Stop()
	var looked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-b.look:
		}
		now := b.h.now()
		b.mu.Lock()
		was := b.up
		b.up = now.Sub(b.heard[0]) < missedTicks*every && now.Sub(b.heard[1]) < missedTicks*every
		up := b.up
		b.tick = true
		b.mu.Unlock()
		poke(b.work)
		switch {
		case up && !was:
			told = false
			b.h.health(nil)
			b.recover()
		case !up && (was || now.Sub(looked) >= every):
			if !told && now.Sub(began) >= missedTicks*every {
				told = true
				b.h.health(errBusSilent)
			}
			looked = now
			poke(b.find)
		}
		if up {
			next.Reset(every)
		} else {
			next.Reset(every / 4)
		}
	}
}

// recover makes good what the volatile store may have forgotten and what other nodes
// sent while the bus was down: routes are claimed and read again, queues are looked
// into, who may be reached is resolved anew, and revoked devices are looked for.
func (b *bus) recover() {
	for i := range b.h.gens {
		b.h.gens[i].Add(1)
	}
	b.h.upkeep.hasten()
	b.mu.Lock()
	b.renew = true
	dropped := b.dropped
	b.dropped = 0
	b.mu.Unlock()
	if dropped > 0 {
		b.h.log.Warn("more was to be told to other nodes than is kept while they are not reached", "dropped", dropped)
	}
	poke(b.find)
}

// findAlways looks for what other nodes have stored when watch asks for it.
func (b *bus) findAlways(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.find:
		}
		b.mu.Lock()
		renew := b.renew
		b.renew = false
		b.mu.Unlock()
		if renew {
			b.h.upkeep.renew(ctx)
		}
		b.h.sweep(ctx)
	}
}

// down says that the volatile store did not answer lately.
func (b *bus) down() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.on() && !b.up
}

// patience bounds a call of the volatile store that a device waits for: not long for
// what is gone.
func (b *bus) patience() time.Duration {
	if b.down() {
		return busCall / 8
	}
	return busCall
}

// health tells the composition root; nil: all is well again.
func (h *Hub) health(err error) {
	if h.opt.Health != nil {
		h.opt.Health(err)
	}
}

// Tell gives a message to the Told of every other node. It is best effort: it waits
// while the bus is down, and is lost when this node ends before it is back.
func (h *Hub) Tell(message []byte) {
	h.bus.notice(busTold, append(append([]byte{byte(len(h.opt.Node))}, h.opt.Node...), message...))
}
