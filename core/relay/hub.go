package relay

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/core/call"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

const (
	shards   = 64 // of the link table
	genSlots = 1024
)

// Hub joins the links of all connected devices. All methods may be called
// concurrently.
type Hub struct {
	opt       Options
	log       *slog.Logger
	metrics   Metrics
	queues    storage.Queues
	directory storage.Directory
	accounts  Accounts

	seed      maphash.Seed
	shards    [shards]shard
	gens      [genSlots]atomic.Uint32
	lanes     []*lane
	outage    outage
	senders   senders
	histories histories
	doner     *doner
	marker    *marker
	upkeep    *upkeep
	bus       *bus
	contacts  *contacts
	calls     *call.Table
	readers   chan struct{}
	vaults    sync.Pool
	pending   atomic.Int64 // bytes of bodies that are not committed
	waiting   atomic.Int64 // rows that no batch has taken
	fence     atomic.Uint64
	serverSeq atomic.Uint64
	serverLog [8]byte

	ctx    context.Context // ends when the hub does
	cancel context.CancelFunc
	closed chan struct{}
	ran    atomic.Bool
}

type shard struct {
	mu    sync.RWMutex
	links map[string]*Link
}

// New makes a hub. It does nothing until Run.
func New(opt Options) (*Hub, error) {
	if err := opt.check(); err != nil {
		return nil, err
	}
	h := &Hub{
		opt: opt, log: opt.Log, outage: outage{log: opt.Log}, metrics: opt.Metrics, queues: opt.Store.Queues, directory: opt.Store.Directory,
		accounts: opt.Accounts, seed: maphash.MakeSeed(), closed: make(chan struct{}),
		readers: make(chan struct{}, opt.Limits.Readers),
	}
	if h.metrics == nil {
		h.metrics = noMetrics{}
	}
	if _, err := opt.Rand.Read(h.serverLog[:]); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	for i := range h.shards {
		h.shards[i].links = map[string]*Link{}
	}
	for range opt.Traits.Lanes {
		h.lanes = append(h.lanes, newLane(h))
	}
	h.senders.m = map[string]*sender{}
	h.histories.m = map[string]*history{}
	h.doner = &doner{h: h, m: map[string]*storage.Done{}, wake: make(chan struct{}, 1)}
	h.marker = &marker{h: h, wake: make(chan struct{}, 1)}
	h.upkeep = newUpkeep(h)
	h.bus = newBus(h)
	if _, err := opt.Rand.Read(h.bus.run[:]); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	h.contacts = newContacts(h)
	h.calls = call.New(call.Options{Clock: opt.Clock, Audit: opt.Audit, Metrics: h.metrics})
	h.vaults.New = func() any { return newVault(opt.StorageKey, opt.Rand) }
	return h, nil
}

// Run does the hub's work until ctx ends: then links are closed, what was
// accepted is committed, marks and deletions are flushed. It may be called once.
func (h *Hub) Run(ctx context.Context) error {
	if h.ran.Swap(true) {
		return ErrClosed
	}
	defer close(h.closed)
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	var lanes, others sync.WaitGroup
	for _, l := range h.lanes {
		lanes.Go(func() { l.run(work) })
	}
	services, stopServices := context.WithCancel(work)
	defer stopServices()
	others.Go(func() { h.doner.run(services) })
	others.Go(func() { h.marker.run(services) })
	others.Go(func() { h.upkeep.run(services) })
	others.Go(func() { h.purge(services) })
	h.bus.start(services, &others)

	select {
	case <-ctx.Done():
	case <-h.ctx.Done():
	}
	h.cancel()
	for i := range h.shards {
		for _, l := range h.shards[i].all() {
			l.box.Close(ccp.CodeUnavailable)
			l.Detach()
		}
	}
	stopWork() // the lanes store what they have
	lanes.Wait()
	stopServices()
	others.Wait()
	h.marker.flush()
	for _, l := range h.lanes {
		l.finish(work)
	}
	h.doner.all(work)
	return nil
}

// Close ends Run and waits for it, or for ctx.
func (h *Hub) Close(ctx context.Context) error {
	h.cancel()
	if !h.ran.Load() {
		return nil
	}
	select {
	case <-h.closed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *Hub) now() time.Time { return h.opt.Clock() }

// sleep waits for d or the end of ctx.
func (h *Hub) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (h *Hub) shard(device string) *shard {
	return &h.shards[maphash.String(h.seed, device)%shards]
}

// lane divides queues as storage does: what two lanes commit at once must not wait
// for each other there.
func (h *Hub) lane(queue string) *lane { return h.lanes[storage.Lane(queue, len(h.lanes))] }

// link is the device's live link on this node, or nil.
func (h *Hub) link(device string) *Link {
	s := h.shard(device)
	s.mu.RLock()
	l := s.links[device]
	s.mu.RUnlock()
	return l
}

func (s *shard) all() []*Link {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*Link, 0, len(s.links))
	for _, l := range s.links {
		out = append(out, l)
	}
	return out
}

// remove takes the link out of the table if it is still the device's.
func (h *Hub) remove(l *Link) bool {
	s := h.shard(l.device)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links[l.device] != l {
		return false
	}
	delete(s.links, l.device)
	return true
}

// Claim takes the route of a device for a session and gives the fence for its
// Ack. If the volatile store does not answer, a number of this node's serves: it
// saves work only, correctness rests on ids and positions.
func (h *Hub) Claim(ctx context.Context, device, session string) uint64 {
	now := h.now()
	if r := h.opt.Store.Routes; r != nil {
		ctx, cancel := context.WithTimeout(ctx, h.bus.patience())
		defer cancel()
		fences, err := r.Claim(ctx, now, []storage.Claim{{Device: device, Node: h.opt.Node, Session: session, TTL: h.opt.Limits.PresenceTTL}})
		if err == nil && len(fences) == 1 {
			return fences[0]
		}
		h.log.Warn("claim route", "device", device, "error", err)
	}
	for {
		last := h.fence.Load()
		next := max(last+1, uint64(now.UnixMilli()))
		if h.fence.CompareAndSwap(last, next) {
			return next
		}
	}
}

// Attach registers a session that has proved itself. An older connection of the
// device gets Error replaced and ends; if this one is the older, the error is
// ErrReplaced. cursor is the highest position stored by the client: rows up to
// it are deleted, and delivery starts behind it once Start is called.
func (h *Hub) Attach(ctx context.Context, box Outbox, cursor uint64) (*Link, error) {
	if h.ctx.Err() != nil {
		return nil, ErrClosed
	}
	fence := box.Fence()
	if fence == 0 {
		fence = h.Claim(ctx, box.Device(), box.Session())
	}
	s, err := h.senders.acquire(ctx, h.queues, box.Device())
	if err != nil {
		return nil, fmt.Errorf("relay: marks: %w", err)
	}
	l := &Link{
		h: h, box: box, device: box.Device(), user: box.User(), caps: box.Capabilities(), fence: fence, cursor: cursor,
		sender: s,
	}
	l.ack, l.records = l.caps.Has(ccp.Ack), l.caps.Has(ccp.Records)
	l.ownLog = sessionLog(box.Session(), l.ack, fence)
	if p, ok := box.(Plain); ok {
		l.plain = p.Plain()
	}
	l.ctx, l.cancel = context.WithCancel(h.ctx)
	l.in.room.L = &l.in.mu
	l.out.tail, l.out.pushed, l.out.since = cursor, cursor, h.now()

	sh := h.shard(l.device)
	sh.mu.Lock()
	old := sh.links[l.device]
	if old != nil && old.fence > fence {
		sh.mu.Unlock()
		l.cancel()
		h.senders.release(s)
		return nil, ErrReplaced
	}
	sh.links[l.device] = l
	sh.mu.Unlock()
	if old != nil {
		old.replaced()
	}
	if cursor > 0 {
		h.doner.cursor(l.device, cursor)
	}
	h.doner.flush(ctx, l.device)
	l.out.mu.Lock()
	l.out.hist = h.histories.of(l.device)
	l.out.mu.Unlock()
	h.touchUser(l.user)   // capabilities may have changed
	h.touchUser(l.device) // it was unknown to routes that name it
	h.bus.notice(busClaimed, claimedBody(l))
	h.upkeep.attached(l)
	if h.ctx.Err() != nil {
		l.Detach()
		return nil, ErrClosed
	}
	return l, nil
}

// Disconnect ends the device's session on this node with an Error of the code,
// and says whether there was one.
func (h *Hub) Disconnect(device, code string) bool {
	l := h.link(device)
	if l == nil {
		return false
	}
	l.box.Close(code)
	l.Detach()
	return true
}

// Connected says whether the device has a session on this node.
func (h *Hub) Connected(device string) bool { return h.link(device) != nil }

// Changed tells the hub that the devices of a user, or whom it counts as
// friends, have changed: senders resolve it anew. Accounts must tell the new state by
// then.
func (h *Hub) Changed(user string) { h.touchUser(user) }

// Drop ends a revoked device: its session with Error revoked, and its queue. Messages
// that were taken before may still be stored in the queue; they expire there.
func (h *Hub) Drop(ctx context.Context, user, device string) error {
	h.Changed(user)
	h.Disconnect(device, ccp.CodeRevoked)
	n, err := h.queues.Drop(ctx, device)
	if err != nil {
		return fmt.Errorf("relay: drop queue: %w", err)
	}
	h.metrics.Dropped(int(n))
	return nil
}

// Generations: a route remembers the counters of what it rests on, as they were before
// that was read.

type generations [genSlots]uint32

func (h *Hub) generations() *generations {
	g := new(generations)
	for i := range g {
		g[i] = h.gens[i].Load()
	}
	return g
}

func (h *Hub) slot(kind byte, key string) uint32 {
	var mh maphash.Hash
	mh.SetSeed(h.seed)
	mh.WriteByte(kind)
	mh.WriteString(key)
	return uint32(mh.Sum64() % genSlots)
}

func (h *Hub) userSlot(user string) uint32 { return h.slot('u', user) }

func (h *Hub) channelSlot(channel uint32) uint32 {
	return h.slot('c', string([]byte{byte(channel >> 24), byte(channel >> 16), byte(channel >> 8), byte(channel)}))
}

func (h *Hub) touchUser(user string) { h.gens[h.userSlot(user)].Add(1) }

// touchChannel is for changes made here: other nodes are told.
func (h *Hub) touchChannel(channel uint32) {
	h.gens[h.channelSlot(channel)].Add(1)
	h.bus.notice(busChannel, binary.BigEndian.AppendUint32(nil, channel))
}

// read asks storage for a page, with a bound on how many do so at once.
func (h *Hub) read(ctx context.Context, queue string, after uint64, max storage.Page) ([]storage.Envelope, error) {
	select {
	case h.readers <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-h.readers }()
	return h.queues.Read(ctx, h.now(), queue, after, max)
}

// away counts a row stored for a device that is not connected here.
func (h *Hub) away(device string, position uint64) {
	h.metrics.Enqueued(1)
	h.bus.stored(device)
}
