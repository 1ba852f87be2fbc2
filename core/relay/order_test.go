package relay

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

func TestWindowBlocksTheReaderAndNothingElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		s, a := b.connect("s.1", allCaps, 0), b.connect("a.1", allCaps, 0)
		s.send("a.1", "first")
		settle()
		gate := make(chan struct{})
		b.store.set(func() { b.store.gate = gate })
		var sent atomic.Int64
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			for range 400 {
				s.send("a.1", "x")
				sent.Add(1)
			}
		}()
		settle()
		if n := sent.Load(); n != 256 {
			t.Errorf("%d counters accepted, want 256", n)
		}
		// What comes in from the recipient is still handled.
		d := a.take()
		a.done(d[0].Position)
		close(gate)
		<-finished
		settle()
		if n := b.store.depth("a.1"); n != 400 && n != 401 {
			t.Errorf("%d rows", n)
		}
	})
}

func TestDetachFreesABlockedReader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, func(o *Options) { o.Limits.Window = 2 })
		defer b.stop()
		s := b.connect("s.1", allCaps, 0)
		b.acc.add("a.1", allCaps)
		gate := make(chan struct{})
		b.store.set(func() { b.store.gate = gate })
		errs := make(chan error, 1)
		go func() {
			var err error
			for i := uint64(1); err == nil; i++ {
				err = s.sendAs(i, 0, []string{"a.1"}, "x", 0)
			}
			errs <- err
		}()
		settle()
		s.link.Detach()
		<-errs
		close(gate)
	})
}

func TestTransientFailureKeepsOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		s, a := b.connect("s.1", allCaps, 0), b.connect("a.1", allCaps, 0)
		b.acc.add("c.1", allCaps)
		s.send("a.1", "1")
		settle()
		check(t, "ack", s.acked(), "1-1")
		down := true
		b.store.set(func() {
			b.store.fail = func(storage.Batch) error {
				if down {
					return errStore
				}
				return nil
			}
		})
		s.send("a.1", "2")
		s.send("a.1", "3")
		after(6 * time.Second)
		s.send("c.1", "4")
		settle()
		var codes []ccp.ErrorBody
		for _, c := range s.takeControls() {
			e, err := ccp.ParseErrorBody([]byte(c.payload))
			if err != nil {
				t.Fatalf("%v %s", err, c.payload)
			}
			codes = append(codes, e)
		}
		if len(codes) != 1 || codes[0].Error != "unavailable" || codes[0].ID.Counter != 2 || codes[0].RetryMS == 0 {
			t.Fatalf("want one unavailable for 2: %+v", codes)
		}
		b.store.set(func() { down = false })
		s.send("a.1", "5") // dropped: 2 has not come again
		settle()
		check(t, "dropped", s.acked(), "")
		for i, to := range []string{"a.1", "a.1", "c.1", "a.1"} {
			if err := s.sendAs(uint64(i+2), 0, []string{to}, fmt.Sprint(i+2), 0); err != nil {
				t.Fatal(err)
			}
		}
		settle()
		after(2 * time.Second) // the lane may be waiting to repeat a batch of marks
		check(t, "repeated", merged(s.acked()), "2-5")
		check(t, "order", a.bodies(), "1 2 3 5")
	})
}

func TestShortFailureIsHidden(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		s, a := b.connect("s.1", allCaps, 0), b.connect("a.1", allCaps, 0)
		n := 0
		b.store.set(func() {
			b.store.after = func() error { // takes effect, and says that it did not
				if n++; n <= 3 {
					return errStore
				}
				return nil
			}
		})
		s.send("a.1", "1")
		s.send("a.1", "2")
		after(3 * time.Second)
		check(t, "ack", merged(s.acked()), "1-2")
		check(t, "once each", a.bodies(), "1 2")
	})
}

func TestDuplicatesAndRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		s, a := b.connect("s.1", allCaps, 0), b.connect("a.1", allCaps, 0)
		for i := range 5 {
			s.send("a.1", fmt.Sprint(i))
		}
		settle()
		d := a.take()
		a.done(d[4].Position)
		s.takeControls()
		s.sendAs(3, 0, []string{"a.1"}, "again", 0)
		settle()
		check(t, "done again at once", s.acked(), "3-3")
		after(2 * time.Second) // the mark is stored at most 1 s late
		b.stop()

		b2 := newBedOn(t, b.store, b.acc, nil)
		defer b2.stop()
		s2 := b2.connect("s.1", allCaps, 0)
		if l := s2.link.Logs(); len(l) != 1 || fmt.Sprint(l[0].Done) != "[[1 5]]" {
			t.Fatalf("resume.logs %v", l)
		}
		a2 := b2.connect("a.1", allCaps, d[4].Position)
		s2.sendAs(4, 0, []string{"a.1"}, "again", 0)
		s2.sendAs(6, 0, []string{"a.1"}, "6", 0)
		settle()
		check(t, "after restart", a2.bodies(), "6")
		check(t, "acks", s2.acked(), "4-4 6-6")
		s2.sendAs(6+4097, 0, []string{"a.1"}, "far", 0)
		settle()
		check(t, "too far ahead", s2.errors(), "bad_id")
		// Four logs a device; a fifth takes the place of the longest unused.
		for i := range 5 {
			s2.log[7] = byte(100 + i)
			after(time.Second)
			s2.sendAs(1, 0, []string{"a.1"}, "x", 0)
		}
		settle()
		if n := len(s2.link.Logs()); n != maxLogs {
			t.Errorf("%d logs", n)
		}
	})
}

func TestPoisonedRowIsMovedBehindAndSentAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		s := b.connect("s.1", allCaps, 0)
		b.acc.add("a.1", allCaps)
		s.send("a.1", "poison")
		for range poisonAfter {
			a := b.connect("a.1", allCaps, 0)
			settle()
			check(t, "sent", a.bodies(), "poison")
			a.link.Detach()
		}
		s.send("a.1", "one")
		s.send("a.1", "two")
		settle()
		a := b.connect("a.1", allCaps, 0)
		settle()
		d := a.take()
		if len(d) != 2 || string(d[0].Body) != "one" || string(d[1].Body) != "two" {
			t.Fatalf("others first: %+v", d)
		}
		after(time.Second)
		if len(a.take()) != 0 {
			t.Fatal("not alone")
		}
		a.done(d[1].Position) // the cursor passes the poisoned row's old place
		settle()
		p := a.take()
		if len(p) != 1 || string(p[0].Body) != "poison" || p[0].Flags&^(FlagDirect|FlagSentBefore) != 0 {
			t.Fatalf("%+v", p)
		}
		s.send("a.1", "three")
		settle()
		check(t, "held back", a.bodies(), "")
		after(aloneFor)
		check(t, "not for ever", a.bodies(), "three")
		a.done(1 << 40)
		after(time.Second)
		if n := b.store.depth("a.1"); n != 0 {
			t.Errorf("%d rows", n)
		}
	})
}

func TestDoneNamesOnlyWhatWasDelivered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, func(o *Options) { o.Limits.InFlight = 2 })
		defer b.stop()
		s, a := b.connect("s.1", allCaps, 0), b.connect("a.1", allCaps, 0)
		for i := range 6 {
			s.send("a.1", fmt.Sprint(i))
		}
		settle()
		if d := a.take(); len(d) != 2 {
			t.Fatalf("%d in flight", len(d))
		}
		a.done(0, [2]uint64{0, 1 << 60})
		after(time.Second)
		if n := b.store.depth("a.1"); n != 4 {
			t.Errorf("%d rows, want 4", n)
		}
	})
}

func TestShutdownCommitsWhatWasTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		s := b.connect("s.1", allCaps, 0)
		b.acc.add("a.1", allCaps)
		for i := range 100 {
			s.send("a.1", fmt.Sprint(i))
		}
		b.stop()
		check(t, "closed", s.closedWith(), ccp.CodeUnavailable)
		if n := b.store.depth("a.1"); n == 0 {
			t.Error("nothing was committed")
		}
		if len(b.store.marks["dup/s.1"]) == 0 {
			t.Error("marks were not flushed")
		}
	})
}

func TestStorageErrorOnTheWayToARoute(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		s, a := b.connect("s.1", allCaps, 0), b.connect("a.1", allCaps, 0)
		n := 0
		b.store.set(func() {
			b.store.dirErr = func() error {
				if n++; n == 1 {
					return errStore
				}
				return nil
			}
		})
		s.send("a.1", "1")
		s.send("a.1", "2")
		settle()
		check(t, "once", s.errors(), "unavailable")
		check(t, "nothing overtakes", a.bodies(), "")
		s.sendAs(1, 0, []string{"a.1"}, "1", 0)
		s.sendAs(2, 0, []string{"a.1"}, "2", 0)
		settle()
		check(t, "order", a.bodies(), "1 2")
	})
}

// TestMiscountingStorage: a storage that answers with too few or too many records
// ends no process; the sender is told that it was not the message's fault.
func TestMiscountingStorage(t *testing.T) {
	for _, off := range []int{-1, 1} {
		bubble(t, func(t *testing.T) {
			b := newBed(t, nil)
			defer b.stop()
			s := b.connect("s.1", allCaps, 0)
			b.connect("a.1", allCaps, 0)
			s.must(ccp.TypeJoin, 9, `{"members":["a.1"],"relay":true}`)
			settle()
			s.takeControls()
			b.store.set(func() { b.store.miscount = off })
			s.must(ccp.TypeJoin, 9, `{"members":["a.1"]}`)
			settle()
			check(t, "join", s.errors(), "unavailable")
			if err := s.sendAs(1, 9, nil, "on the channel", 0); err != nil {
				t.Fatal(err)
			}
			settle()
			check(t, "send", s.errors(), "unavailable")
		})
	}
}

// TestModel runs random histories against a client that keeps to the protocol:
// nothing acknowledged is lost, what is shown is in order and nobody else sees
// it.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// A bubble needs a *testing.T; failures are carried out of it.
		var failure string
		bubble(t, func(t *testing.T) { failure = runModel(t, rt) })
		if failure != "" {
			rt.Fatal(failure)
		}
	})
}

// modelClient is a client: its outbox with repetition, its duplicate table and
// its cursor outlive connections.
type modelClient struct {
	b       *bed
	device  string
	p       *peer
	next    uint64
	pending map[uint64]string // counters not acknowledged
	acked   map[uint64]bool
	failed  uint64
	seen    map[string]*ccp.Window
	shown   map[string][]string
	got     []Delivery
	cursor  uint64
	done    map[uint64]bool
}

func runModel(t *testing.T, rt *rapid.T) string {
	lanes := rapid.IntRange(1, 3).Draw(rt, "lanes")
	b := newBed(t, func(o *Options) {
		o.Traits = storage.Traits{Batch: rapid.IntRange(1, 8).Draw(rt, "batch"), Lanes: lanes}
		o.Limits.InFlight = rapid.IntRange(1, 8).Draw(rt, "inflight")
		o.Limits.GiveUp = 100 * time.Millisecond
		o.Limits.NewContacts = 1000
	})
	defer b.stop()
	faults := 0
	b.store.set(func() {
		b.store.fail = func(storage.Batch) error {
			if faults > 0 {
				faults--
				return errStore
			}
			return nil
		}
	})
	lie := 0
	b.store.set(func() {
		b.store.after = func() error {
			if lie > 0 {
				lie--
				return errStore
			}
			return nil
		}
	})
	names := []string{"a.1", "c.1", "d.1"}
	clients := map[string]*modelClient{}
	for _, n := range names {
		c := &modelClient{b: b, device: n, pending: map[uint64]string{}, acked: map[uint64]bool{}, seen: map[string]*ccp.Window{}, shown: map[string][]string{}, done: map[uint64]bool{}}
		clients[n] = c
		c.connect()
	}
	spy := b.connect("spy.1", allCaps, 0)
	sentTo := map[string]map[string][]string{} // sender → recipient → bodies by counter
	steps := rapid.IntRange(5, 40).Draw(rt, "steps")
	for range steps {
		c := clients[rapid.SampledFrom(names).Draw(rt, "who")]
		switch rapid.SampledFrom([]string{"send", "send", "send", "done", "cut", "fault", "lie", "wait", "repeat"}).Draw(rt, "what") {
		case "send":
			to := rapid.SampledFrom(names).Draw(rt, "to")
			if to == c.device || len(c.pending) > 200 {
				continue
			}
			c.next++
			body := fmt.Sprintf("%s>%s:%d", c.device, to, c.next)
			if sentTo[c.device] == nil {
				sentTo[c.device] = map[string][]string{}
			}
			sentTo[c.device][to] = append(sentTo[c.device][to], body)
			c.pending[c.next] = body
			c.transmit(c.next)
		case "done":
			c.receive(rapid.IntRange(0, 5).Draw(rt, "n"))
		case "cut":
			c.receive(rapid.IntRange(0, 3).Draw(rt, "n"))
			c.sync()
			c.connect() // takes over from the old connection
		case "fault":
			b.store.set(func() { faults = rapid.IntRange(1, 12).Draw(rt, "faults") })
		case "lie":
			b.store.set(func() { lie = rapid.IntRange(1, 3).Draw(rt, "lies") })
		case "wait":
			after(200 * time.Millisecond)
		case "repeat":
			c.sync()
			c.repeat()
		}
	}
	b.store.set(func() { faults, lie = 0, 0 })
	for range 60 {
		after(time.Second)
		idle := true
		for _, c := range clients {
			c.sync()
			if len(c.pending) > 0 {
				idle = false
				c.repeat()
			}
			if c.receive(1 << 20) {
				idle = false
			}
		}
		if idle {
			break
		}
	}
	for from, m := range sentTo {
		for to, want := range m {
			if got := clients[to].shown[from]; strings.Join(got, " ") != strings.Join(want, " ") {
				o := &clients[to].p.link.out
				return fmt.Sprintf("%s to %s: shown %v, want %v; rows %d live %v dirty %v reading %v tail %d pushed %d waiting %d held %d backlog %d cursor %d ended %v", from, to, got, want,
					b.store.depth(to), o.live, o.dirty, o.reading, o.tail, o.pushed, o.ring.waiting, len(o.held), len(o.backlog), clients[to].cursor, o.ended) + fmt.Sprint(" pending ", clients[from].pending, " logs ", clients[from].p.link.Logs())
			}
		}
		if n := len(clients[from].pending); n > 0 {
			return fmt.Sprintf("%s: %d never acknowledged", from, n)
		}
	}
	if d := spy.take(); len(d) != 0 {
		return fmt.Sprintf("a stranger got %+v", d)
	}
	return ""
}

func (c *modelClient) connect() {
	c.p = c.b.connect(c.device, allCaps, c.cursor)
	c.got = nil
	c.failed = 0
	for _, l := range c.p.link.Logs() {
		if l.Log == c.p.log {
			for _, r := range l.Done {
				for n := range c.pending {
					if n >= r[0] && n <= r[1] {
						delete(c.pending, n)
					}
				}
			}
		}
	}
	c.repeat()
}

func (c *modelClient) transmit(n uint64) {
	body := c.pending[n]
	_, rest, _ := strings.Cut(body, ">")
	to, _, _ := strings.Cut(rest, ":")
	if err := c.p.sendAs(n, 0, []string{to}, body, 0); err != nil {
		c.b.t.Errorf("send: %v", err)
	}
}

// repeat sends everything that is not acknowledged again, in order.
func (c *modelClient) repeat() {
	for n := uint64(1); n <= c.next; n++ {
		if _, ok := c.pending[n]; ok {
			c.transmit(n)
		}
	}
}

// sync reads what the server answered.
func (c *modelClient) sync() {
	settle()
	for _, m := range c.p.takeControls() {
		if m.t != ccp.TypeAck {
			continue
		}
		a, err := ccp.ParseSendAck([]byte(m.payload))
		if err != nil {
			c.b.t.Errorf("ack: %v", err)
			continue
		}
		for _, r := range a.Done {
			for n := r[0]; n <= r[1]; n++ {
				delete(c.pending, n)
			}
		}
	}
}

// receive stores up to n deliveries, shows the new ones and says Done.
func (c *modelClient) receive(n int) bool {
	settle()
	c.got = append(c.got, c.p.take()...)
	n = min(n, len(c.got))
	if n == 0 {
		return false
	}
	for _, d := range c.got[:n] {
		w := c.seen[d.Device]
		if w == nil {
			w = new(ccp.Window)
			c.seen[d.Device] = w
		}
		if w.Note(d.ID.Counter) {
			c.shown[d.Device] = append(c.shown[d.Device], string(d.Body))
		}
		c.cursor = max(c.cursor, d.Position)
	}
	c.got = c.got[n:]
	c.p.done(c.cursor)
	settle()
	return true
}
