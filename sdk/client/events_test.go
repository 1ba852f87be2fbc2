package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// OnEvent is called one at a time, in order, and never after Close has returned; what was
// told before is told by then.
func TestEventsOneByOne(t *testing.T) {
	const tellers, each = 8, 20
	var (
		events teller
		inside atomic.Int32
		next   [tellers]int
		told   int
	)
	events.call = func(e Event) {
		if inside.Add(1) != 1 {
			t.Error("OnEvent runs beside itself")
		}
		if int(e.Milliseconds) != next[e.Channel] {
			t.Errorf("event %v of %d, want %d", e.Milliseconds, e.Channel, next[e.Channel])
		}
		next[e.Channel]++
		told++ // the race detector finds two at once
		inside.Add(-1)
	}
	var all sync.WaitGroup
	for i := range uint32(tellers) {
		all.Go(func() {
			for n := range each {
				events.tell(Event{Name: "presence", Channel: i, Milliseconds: float64(n), Payload: []byte("{}")})
			}
		})
	}
	all.Wait()
	events.end(false)
	events.wait()
	events.tell(Event{Name: "late"})
	if told != tellers*each {
		t.Errorf("%d told", told)
	}
}

// While a callback is slow, what waits is bounded: the relay's tellings do not push out
// the client's own, and the gap is named.
func TestEventsAreBounded(t *testing.T) {
	var (
		events teller
		busy   = make(chan struct{})
		begun  = make(chan struct{}, 1)
		got    []Event
	)
	events.call = func(e Event) {
		if e.Name == "first" {
			begun <- struct{}{}
			<-busy
		}
		got = append(got, e)
	}
	events.tell(Event{Name: "first"})
	<-begun
	events.tell(Event{Name: "downgraded"})
	for i := range 300 {
		events.tell(Event{Name: "trying", Channel: uint32(i)})
	}
	for i := range 1000 {
		events.tell(Event{Name: "presence", Channel: uint32(i), Payload: make([]byte, 10<<10)})
	}
	close(busy)
	events.end(false)
	events.wait()
	fit := maxToldBytes / (10 << 10)
	if n := 1 + maxOwn + fit; len(got) != n {
		t.Fatalf("%d events, want %d", len(got), n)
	}
	if got[1].Name != "downgraded" || got[1].Missed != 301-maxOwn+1000-fit {
		t.Errorf("%s, %d missed", got[1].Name, got[1].Missed)
	}
	if last := got[len(got)-1]; last.Channel != 999 || last.Missed != 0 {
		t.Errorf("%+v", last.Channel)
	}
	if got[2].Channel != uint32(301-maxOwn) || got[1+maxOwn].Channel != uint32(1000-fit) {
		t.Error("not the oldest ones were dropped", got[2].Channel, got[1+maxOwn].Channel)
	}
}

// A callback that does not return holds up neither the connection nor a message.
func TestSlowCallback(t *testing.T) {
	r := newRelay(t)
	r.frame = ackAll
	opt := r.options(0)
	free := make(chan struct{})
	opt.OnEvent = func(Event) { <-free }
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(context.Background()) }()
	k, err := c.Send(Draft{To: []string{"b"}})
	if err == nil {
		_, err = k.Wait(t.Context())
	}
	if err != nil {
		t.Error(err)
	}
	close(free)
	c.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// A callback may send and stop; what follows Close finds no callback running.
func TestStopInCallback(t *testing.T) {
	for _, where := range []string{"OnEvent", "Handle", "both"} {
		t.Run(where, func(t *testing.T) {
			r := newRelay(t)
			r.ready = func(p *peer) {
				for i := range uint64(3) {
					_ = p.deliver(i+1, i+1, "x")
				}
			}
			opt := r.options(0)
			var (
				c       *Client
				told    []string
				shown   int
				meeting sync.WaitGroup
				stopped = make(chan struct{}, 2)
			)
			end := func() {
				if where == "both" {
					meeting.Done()
					meeting.Wait()
				}
				if _, err := c.Send(Draft{To: []string{"b"}}); where != "both" && err != nil {
					t.Error(err)
				}
				c.Stop()
				stopped <- struct{}{}
			}
			meeting.Add(2)
			opt.Handle = func(Message) error {
				if shown++; shown == 1 && where != "OnEvent" {
					end()
				}
				return nil
			}
			opt.OnEvent = func(e Event) {
				if told = append(told, e.Name); e.Name == "connected" && where != "Handle" {
					end()
				}
			}
			var err error
			if c, err = New(opt); err != nil {
				t.Fatal(err)
			}
			if err := c.Run(t.Context()); !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
			<-stopped
			c.Close()
			if where != "OnEvent" && shown != 1 {
				t.Errorf("%d shown", shown)
			}
			if where != "Handle" && !slices.Equal(told, []string{"trying", "confirming", "connected"}) {
				t.Error(told)
			}
		})
	}
}

// Keys that are drawn while the client is closed are not written: the profile may be
// another program's by then.
func TestKeyDrawnDuringClose(t *testing.T) {
	r := newRelay(t)
	opt := r.options(0)
	asked, drawn := make(chan struct{}), make(chan struct{})
	first := true
	opt.Dialers = []transport.Dialer{maker{r, func() ([]byte, []byte, error) {
		if first {
			first = false
			return []byte("private"), []byte("public"), nil
		}
		asked <- struct{}{}
		<-drawn
		return []byte("late"), []byte("late"), nil
	}}}
	dir := t.TempDir()
	if err := opt.Profile.Save(dir); err != nil {
		t.Fatal(err)
	}
	u := start(t, opt)
	u.connected()
	renewed := make(chan error, 1)
	go func() { renewed <- u.RenewKeys() }()
	<-asked
	u.Close()
	before, err := os.ReadFile(dir + "/" + profileFile)
	if err != nil {
		t.Fatal(err)
	}
	close(drawn)
	if err := <-renewed; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	after, err := os.ReadFile(dir + "/" + profileFile)
	if d := cmp.Diff(string(before), string(after)); d != "" || err != nil {
		t.Error(d, err)
	}
	if keys := u.Profile().Keys; fmt.Sprint(keys) != "[key for pipe]" || string(keys[0].Public) != "public" {
		t.Error(keys)
	}
}

// A flood of frames that are no messages takes no memory while the callback is slow, and
// pushes out nothing of what the client says itself.
func TestEventFlood(t *testing.T) {
	t.Run("full", func(t *testing.T) { flood(t, ccp.TypePresence, []byte(`{"state":"away"}`)) })
	t.Run("empty", func(t *testing.T) { flood(t, ccp.TypeMsg, nil) })
}

func flood(t *testing.T, kind ccp.Type, payload []byte) {
	r := newRelay(t)
	r.ready = func(p *peer) {
		for range 400 {
			_ = p.send(kind, 0, payload)
		}
		_ = p.deliver(1, 1, "behind")
	}
	opt := r.options(0)
	var (
		c     *Client
		shown = make(chan struct{})
		told  int
		own   []string
	)
	free := make(chan struct{})
	opt.Handle = func(Message) error { close(shown); return nil }
	opt.OnEvent = func(e Event) {
		<-free
		if e.Name != "presence" && e.Name != "event" {
			own = append(own, e.Name)
		}
		told += 1 + e.Missed
	}
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(context.Background()) }()
	<-shown
	c.events.mu.Lock()
	if n := len(c.events.queue); n > maxTold+maxOwn {
		t.Errorf("%d events wait", n)
	}
	c.events.mu.Unlock()
	close(free)
	c.Close()
	<-ended
	if told != 404 { // trying, confirming, connected, disconnected besides
		t.Errorf("%d told or missed", told)
	}
	if d := cmp.Diff([]string{"trying", "confirming", "connected", "disconnected"}, own); d != "" {
		t.Error(d)
	}
}
