package relay

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// wire is a bus between the nodes of a test. It can be cut, and can swallow messages.
type wire struct {
	mu      sync.Mutex
	topics  map[string][]chan []byte
	cut     bool
	swallow bool
}

var errCut = errors.New("wire: cut")

func (w *wire) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *wire) Publish(_ context.Context, node string, messages [][]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return errCut
	}
	for _, c := range w.topics[node] {
		for _, m := range messages {
			if !w.swallow {
				c <- append([]byte(nil), m...)
			}
		}
	}
	return nil
}

func (w *wire) Subscribe(ctx context.Context, self string, f func([]byte)) error {
	c := make(chan []byte, 1024)
	w.mu.Lock()
	if w.topics == nil {
		w.topics = map[string][]chan []byte{}
	}
	w.topics[self] = append(w.topics[self], c)
	w.mu.Unlock()
	for {
		select {
		case m := <-c:
			f(m)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// nodes are two hubs on one store and one bus.
type nodes struct {
	*wire
	store *fakeStore
	a, b  *bed

	mu     sync.Mutex
	told   []string // what b was told
	health []error  // of b
}

func newNodes(t *testing.T) *nodes {
	n := &nodes{wire: &wire{}, store: newFakeStore()}
	acc := &fakeAccounts{}
	make := func(name string) *bed {
		return newBedOn(t, n.store, acc, func(o *Options) {
			o.Store.Bus, o.Traits.Shared, o.Node = n.wire, true, name
			if name != "b" {
				return
			}
			o.Told = func(_ context.Context, m []byte) { n.mu.Lock(); n.told = append(n.told, string(m)); n.mu.Unlock() }
			o.Health = func(err error) { n.mu.Lock(); n.health = append(n.health, err); n.mu.Unlock() }
		})
	}
	n.a, n.b = make("a"), make("b")
	after(time.Second) // the first ticks
	return n
}

func (n *nodes) stop() { n.a.stop(); n.b.stop() }

// forget empties the volatile store.
func (n *nodes) forget() { n.store.set(func() { clear(n.store.fences); clear(n.store.beats) }) }

func TestNodesDeliverToEachOther(t *testing.T) {
	tests := map[string]struct {
		fault  func(n *nodes)
		within time.Duration // 0: at once
	}{
		"all is well":                {func(*nodes) {}, 0},
		"the routes are forgotten":   {(*nodes).forget, 0},
		"the bus is cut":             {func(n *nodes) { n.set(func() { n.cut = true }) }, 4 * time.Second},
		"the bus was cut for a time": {func(n *nodes) { n.set(func() { n.cut = true }); after(time.Minute) }, time.Second},
		"every wake is swallowed":    {func(n *nodes) { n.set(func() { n.swallow = true }) }, 4 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := newNodes(t)
				defer n.stop()
				s, r := n.a.connect("s.1", allCaps, 0), n.b.connect("r.1", allCaps, 0)
				s.send("r.1", "zero")
				settle()
				if got := r.bodies(); got != "zero" {
					t.Fatalf("before the fault: %q", got)
				}
				test.fault(n)
				s.send("r.1", "one")
				s.send("r.1", "two")
				settle()
				if test.within > 0 {
					after(test.within)
				}
				if got := r.bodies(); got != "one two" {
					t.Errorf("delivered %q", got)
				}
			})
		})
	}
}

// TestLostWake: one wake is lost and nobody notices.
func TestLostWake(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newNodes(t)
		defer n.stop()
		s, r := n.a.connect("s.1", allCaps, 0), n.b.connect("r.1", allCaps, 0)
		settle()
		n.set(func() { n.swallow = true })
		s.send("r.1", "one")
		settle()
		n.set(func() { n.swallow = false })
		if got := r.bodies(); got != "" {
			t.Fatalf("delivered %q", got)
		}
		after(10 * time.Second)
		if got := r.bodies(); got != "one" {
			t.Errorf("delivered %q with the renewal", got)
		}
	})
}

func TestNewestConnectionWins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newNodes(t)
		defer n.stop()
		s := n.a.connect("s.1", allCaps, 0)
		old := n.a.connect("r.1", allCaps, 0)
		settle()
		newer := n.b.connect("r.1", allCaps, 0)
		settle()
		if old.closedWith() != ccp.CodeReplaced || newer.closedWith() != "" {
			t.Errorf("closed with %q and %q", old.closedWith(), newer.closedWith())
		}
		s.send("r.1", "one")
		settle()
		if got := newer.bodies(); got != "one" {
			t.Errorf("delivered %q", got)
		}
		// And back, with the bus cut: the renewal finds out once it is there again.
		n.set(func() { n.cut = true })
		again := n.a.connect("r.1", allCaps, 0)
		s.send("r.1", "two")
		settle()
		if got := again.bodies(); got != "one two" {
			t.Errorf("delivered %q", got)
		}
		n.set(func() { n.cut = false })
		after(10 * time.Second)
		if newer.closedWith() != ccp.CodeReplaced || again.closedWith() != "" {
			t.Errorf("closed with %q and %q", newer.closedWith(), again.closedWith())
		}
	})
}

func TestTell(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newNodes(t)
		defer n.stop()
		n.a.hub.Tell([]byte("one"))
		n.b.hub.Tell([]byte("to the others only"))
		settle()
		n.set(func() { n.cut = true })
		n.a.hub.Tell([]byte("two"))
		after(5 * time.Second)
		n.set(func() { n.cut = false })
		after(2 * time.Second)
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.told) != 2 || n.told[0] != "one" || n.told[1] != "two" {
			t.Errorf("told %q", n.told)
		}
		if len(n.health) != 3 || n.health[0] != nil || !errors.Is(n.health[1], errBusSilent) || n.health[2] != nil {
			t.Errorf("health %v", n.health)
		}
	})
}

func TestRevokedElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newNodes(t)
		defer n.stop()
		p := n.b.connect("r.1", allCaps, 0)
		n.b.acc.mu.Lock()
		d := n.b.acc.devices["r.1"]
		d.Active = false
		n.b.acc.devices["r.1"] = d
		n.b.acc.mu.Unlock()
		after(inspectEvery * 11 * time.Second)
		if p.closedWith() != ccp.CodeRevoked {
			t.Errorf("closed with %q", p.closedWith())
		}
	})
}

// TestRevokedWhileNotReached: the word of it was lost, and is not waited for as long as
// where nothing was.
func TestRevokedWhileNotReached(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newNodes(t)
		defer n.stop()
		p := n.b.connect("r.1", allCaps, 0)
		after(time.Minute)
		n.set(func() { n.cut = true })
		after(5 * time.Second)
		n.b.acc.mu.Lock()
		d := n.b.acc.devices["r.1"]
		d.Active = false
		n.b.acc.devices["r.1"] = d
		n.b.acc.mu.Unlock()
		n.set(func() { n.cut = false })
		after((inspectEvery/inspectHaste + 1) * 11 * time.Second)
		if p.closedWith() != ccp.CodeRevoked {
			t.Errorf("closed with %q", p.closedWith())
		}
	})
}

func TestEphemeralBetweenNodes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := newNodes(t)
		defer n.stop()
		s, r := n.a.connect("s.1", allCaps, 0), n.b.connect("r.1", allCaps, 0)
		settle()
		send, err := ccp.AppendSend(nil, ccp.Send{Kind: ccp.TypeTyping, Flags: ccp.SendEphemeral, ID: ccp.MessageID{Log: s.log, Counter: 1}, To: [][]byte{[]byte("r.1")}, Body: []byte(`{"typing":true}`)})
		if err != nil {
			t.Fatal(err)
		}
		s.must(ccp.TypeSend, 0, string(send))
		settle()
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.media) != 1 {
			t.Errorf("%d media frames, controls %v of the sender", len(r.media), s.takeControls())
		}
	})
}

func TestTooManyWakes(t *testing.T) {
	b := newBus(&Hub{opt: Options{Traits: storage.Traits{Shared: true}, Store: storage.Store{Bus: &wire{}, Routes: (*fakeRoutes)(nil)}}})
	for i := range maxWakes + 2 {
		b.stored(string([]byte{byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if !b.everyone || len(b.wakes) != 0 {
		t.Errorf("everyone %v, %d wakes", b.everyone, len(b.wakes))
	}
}

// FuzzBus: what another node says is read within its bounds, and a foreign or cut
// message changes nothing.
func FuzzBus(f *testing.F) {
	h, err := New(Options{Store: newFakeStore().store(), Accounts: &fakeAccounts{}, Node: "n"})
	if err != nil {
		f.Fatal(err)
	}
	env := envelope{kind: ccp.TypeTyping, id: ccp.MessageID{Counter: 1}, device: "s", user: "u", body: []byte("b")}
	job := ephemeralJob{devices: []string{"d"}, own: []bool{true}, env: env}
	f.Add(byte(busWake), appendName(appendName(nil, "a"), "b"))
	f.Add(byte(busEphemeral), job.body(0))
	f.Add(byte(busClaimed), claimedBody(&Link{fence: 1, device: "d", user: "u"}))
	f.Add(byte(busTold), append(appendName(nil, "m"), "x"...))
	f.Add(byte(busTick), make([]byte, 8))
	f.Add(byte(busChannel), make([]byte, 4))
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		m, err := h.bus.seal(kind, body)
		if err != nil {
			t.Fatal(err)
		}
		h.bus.receive(t.Context(), 0, m)
		k, b, ok := h.bus.open(append([]byte(nil), m...))
		if !ok || k != kind || string(b) != string(body) {
			t.Errorf("%d %x came back as %d %x", kind, body, k, b)
		}
		m[len(m)-1] ^= 1
		if _, _, ok := h.bus.open(m); ok {
			t.Error("a changed message opened")
		}
	})
}

// slowDepths takes longer for a look into storage than the bus may be silent.
type slowDepths struct{ storage.Queues }

func (s slowDepths) Depths(ctx context.Context, queues []string) ([]storage.Depth, error) {
	select {
	case <-time.After(4 * time.Second):
		return s.Queues.Depths(ctx, queues)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestSlowStorageIsNotSilence: a bus that carries is not taken for one that is down
// because storage is slow.
func TestSlowStorageIsNotSilence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := &wire{}
		var mu sync.Mutex
		var health []error
		b := newBed(t, func(o *Options) {
			o.Store.Queues = slowDepths{o.Store.Queues}
			o.Store.Bus, o.Traits.Shared, o.Node = w, true, "a"
			o.Health = func(err error) { mu.Lock(); health = append(health, err); mu.Unlock() }
		})
		defer b.stop()
		b.connect("r.1", allCaps, 0)
		after(time.Second)
		w.set(func() { w.cut = true })
		after(10 * time.Second)
		w.set(func() { w.cut = false })
		after(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if len(health) != 3 || health[0] != nil || !errors.Is(health[1], errBusSilent) || health[2] != nil {
			t.Errorf("health %v", health)
		}
		if b.hub.bus.down() {
			t.Error("the bus counts as down")
		}
	})
}
