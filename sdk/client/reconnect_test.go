package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
)

func TestBackoff(t *testing.T) {
	var b backoff
	want := backoffMin
	for range 12 {
		if d := b.next(); d < want/2 || d > want {
			t.Fatalf("%v is not within half of %v", d, want)
		}
		want = min(2*want, backoffMax)
	}
	b.reset()
	if d := b.next(); d > backoffMin {
		t.Fatal(d)
	}
	seen := make(map[time.Duration]bool)
	for range 20 {
		b := backoff{step: backoffMax / 2}
		seen[b.next()] = true
	}
	if len(seen) < 15 {
		t.Error("no jitter")
	}
}

func TestReconnectPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		opt := Options{Store: memory()}
		r := newRelay(t)
		opt.Profile = r.profile(0)
		opt.Dialers = []transport.Dialer{&fixed{name: "pipe", with: func(context.Context, transport.Endpoint, transport.Dial) (net.Conn, error) {
			at = append(at, time.Now())
			return nil, errors.New("no route")
		}}}
		u := start(t, opt)
		time.Sleep(10 * time.Minute)
		if e := u.event("waiting"); e.Err == nil || !strings.Contains(e.Err.Error(), "no route") {
			t.Errorf("waiting: %v", e.Err)
		}
		u.stop()
		if err := <-u.ended; err != nil {
			t.Error(err)
		}
		u.ended <- nil
		if n := len(at); n < 25 || n > 55 {
			t.Errorf("%d dials in 10 minutes", n)
		}
		for i, d := range []time.Duration{backoffMin, 2 * backoffMin, 4 * backoffMin} {
			if gap := at[i+1].Sub(at[i]); gap < d/2 || gap > d {
				t.Errorf("pause %d: %v", i, gap)
			}
		}
	})
}

// TestReplacedBacksOff: two copies of a profile do not fight at full speed.
func TestReplacedBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t)
		r.ready = func(p *peer) {
			_ = p.deliver(uint64(r.dials.Load()), uint64(r.dials.Load()), "x")
			_ = p.send(ccp.TypeError, 0, ccp.ErrorBody{Error: ccp.CodeReplaced}.Marshal())
		}
		u := start(t, r.options(0))
		time.Sleep(5 * time.Minute)
		if n := r.dials.Load(); n > 40 {
			t.Errorf("%d dials", n)
		}
		if e := u.event("disconnected"); !strings.Contains(e.Err.Error(), "copy of the profile") {
			t.Error(e.Err)
		}
	})
}

func TestSilentRelay(t *testing.T) {
	for _, tc := range []struct {
		name  string
		send  bool
		after time.Duration
	}{{"idle", false, 75 * time.Second}, {"a message without an answer", true, 10 * time.Second}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRelay(t)
				u := start(t, r.options(0))
				u.connected()
				time.Sleep(20 * time.Second)
				began := time.Now()
				if tc.send {
					u.say("x")
				} else {
					began = began.Add(-20 * time.Second)
				}
				e := u.event("disconnected")
				if d := time.Since(began); d < tc.after || d > tc.after+10*time.Second || !isKind(e.Err, Broken) {
					t.Errorf("after %v: %v", d, e.Err)
				}
				time.Sleep(time.Second)
				u.connected()
			})
		})
	}
}

// TestKeepalive: an idle connection with a lively relay stays for hours.
func TestKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t)
		r.ready = func(p *peer) {
			r.wg.Go(func() {
				for {
					time.Sleep(30 * time.Second)
					p.mu.Lock()
					err := p.raw(nil)
					p.mu.Unlock()
					if err != nil {
						return
					}
				}
			})
		}
		u := start(t, r.options(0))
		u.connected()
		first := u.current()
		time.Sleep(3 * time.Hour)
		if u.current() != first {
			t.Fatal("reconnected")
		}
		u.close()
		if n := first.seal.Counter(); n < 300 || n > 400 {
			t.Errorf("%d records sent", n)
		}
	})
}

// race of endpoints: Confirm on one connection only, the losers closed.
func TestRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t)
		opt := r.options(0)
		opt.Profile.Relay.Endpoints = nil
		var mu sync.Mutex
		open, started := 0, []string{}
		slow := map[string]time.Duration{"a": 2 * time.Second, "b": 1500 * time.Millisecond, "c": 10 * time.Millisecond}
		for _, host := range []string{"a", "b", "c"} {
			opt.Profile.Relay.Endpoints = append(opt.Profile.Relay.Endpoints, Endpoint{Transport: "pipe", Host: host, Port: 1})
		}
		opt.Dialers = []transport.Dialer{&fixed{name: "pipe", with: func(ctx context.Context, to transport.Endpoint, d transport.Dial) (net.Conn, error) {
			mu.Lock()
			started = append(started, to.Host)
			mu.Unlock()
			time.Sleep(slow[to.Host]) // a dialer that does not look at ctx
			conn, err := r.Dial(context.Background(), to, d)
			mu.Lock()
			open++
			mu.Unlock()
			return &noted{Conn: conn, closed: func() { mu.Lock(); open--; mu.Unlock() }}, err
		}}}
		began := time.Now()
		u := start(t, opt)
		u.connected()
		if d := time.Since(began); d < 1400*time.Millisecond || d > 1420*time.Millisecond {
			t.Errorf("connected after %v", d)
		}
		time.Sleep(10 * time.Second)
		mu.Lock()
		if got := strings.Join(started, ""); got != "abc" || r.confirms.Load() != 1 || open != 1 {
			t.Errorf("dialled %s, %d Confirms, %d open", got, r.confirms.Load(), open)
		}
		mu.Unlock()
		u.cut() // the last good one comes first now
		mu.Lock()
		defer mu.Unlock()
		if got := strings.Join(started, ""); got != "abcc" {
			t.Errorf("dialled %s", got)
		}
	})
}

type noted struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (n *noted) Close() error { n.once.Do(n.closed); return n.Conn.Close() }

// TestHoleAfterHello: an endpoint that swallows the Confirm is not tried first
// again.
func TestHoleAfterHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t)
		var hole atomic.Bool
		r.confirm = func(ccp.Confirm) *ccp.ErrorBody {
			if hole.Load() {
				time.Sleep(dialTimeout + time.Second)
				return &ccp.ErrorBody{Error: "late"}
			}
			return nil
		}
		opt := r.options(0)
		var hosts []string
		opt.Profile.Relay.Endpoints = []Endpoint{{Transport: "pipe", Host: "a", Port: 1}, {Transport: "pipe", Host: "a", Port: 2}}
		opt.Dialers = []transport.Dialer{&fixed{name: "pipe", with: func(ctx context.Context, to transport.Endpoint, d transport.Dial) (net.Conn, error) {
			hosts = append(hosts, fmt.Sprint(to.Port))
			hole.Store(to.Port == 1)
			return r.Dial(ctx, to, d)
		}}}
		u := start(t, opt)
		u.connected()
		if got := strings.Join(hosts, ""); got != "12" {
			t.Errorf("dialled %s", got)
		}
	})
}

// TestAvoid: a path with a downgrade is left alone for a minute, the others are
// used, and the user is told.
func TestAvoid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t)
		var good atomic.Bool
		r.ext = func(e *ccp.Ext) {
			if !good.Load() {
				e.Answer.Hello[0] ^= 1
			}
		}
		u := start(t, r.options(0))
		if e := u.event("downgraded"); !isKind(e.Err, Downgraded) {
			t.Error(e)
		}
		time.Sleep(50 * time.Second)
		if n := r.hellos.Load(); n != 1 {
			t.Errorf("%d dials within the minute", n)
		}
		good.Store(true)
		time.Sleep(50 * time.Second)
		u.connected()
	})
}

func TestMove(t *testing.T) {
	r := newRelay(t)
	dones := make(chan uint64, 4)
	r.frame = func(_ *peer, f ccp.Frame) {
		if f.Type == ccp.TypeDone {
			d, _ := ccp.ParseDone(f.Payload)
			dones <- d.Cursor
		}
	}
	opt := r.options(ccp.AllCapabilities)
	var mu sync.Mutex
	var hosts []string
	opt.Dialers = []transport.Dialer{&fixed{name: "pipe", with: func(ctx context.Context, to transport.Endpoint, d transport.Dial) (net.Conn, error) {
		mu.Lock()
		hosts = append(hosts, to.Host)
		mu.Unlock()
		return r.Dial(ctx, to, d)
	}}}
	u := start(t, opt)
	u.connected()
	p := <-r.arrived
	_ = p.deliver(3, 1, "x")
	_ = p.send(ccp.TypeMove, 0, ccp.Move{Reason: ccp.MoveBlocked, WithinMS: 1000, Endpoints: []link.Endpoint{{Transport: "pipe", Host: "other.example", Port: 444}}}.Marshal())
	<-r.arrived
	u.event("move")
	if e := u.event("waiting"); !isKind(e.Err, Moved) || e.Transport != "pipe" || !strings.Contains(e.Err.Error(), "blocked") {
		t.Errorf("%+v", e)
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(hosts, " "); got != "relay.example other.example" {
		t.Errorf("dialled %s", got)
	}
	if got, last := r.seen(); got != "XK IK" || last.Cursor != 3 {
		t.Errorf("%s, cursor %d", got, last.Cursor)
	}
	select {
	case c := <-dones:
		if c != 3 {
			t.Error(c)
		}
	case <-time.After(10 * time.Second):
		t.Error("left without a Done")
	}
}

func TestLearnIsBounded(t *testing.T) {
	r := newRelay(t)
	c, err := New(r.options(0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range uint16(100) {
		c.learn("", ccp.Move{Endpoints: []link.Endpoint{{Transport: "pipe", Host: "h", Port: i + 1}}})
	}
	es := c.Profile().Relay.Endpoints
	if len(es) != keptEndpoints || es[0].Host != "relay.example" || es[keptEndpoints-1].Port != 100 {
		t.Errorf("%v", es)
	}
}

func TestRunTwice(t *testing.T) {
	r := newRelay(t)
	u := start(t, r.options(0))
	u.connected()
	if err := u.Run(t.Context()); !isKind(err, Invalid) {
		t.Errorf("a second Run: %v", err)
	}
	u.stop()
	if err := <-u.ended; err != nil {
		t.Error(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	go func() { u.ended <- u.Run(ctx) }()
	u.connected()
	stop()
	if err := <-u.ended; err != nil {
		t.Error(err)
	}
	u.ended <- nil
	u.Close()
	if err := u.Run(t.Context()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := u.Connected(t.Context()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// A relay that sends its clients away is given time once, and not by each way: with six
// blocked ways in front the seventh is tried within seconds.
func TestBlockedWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t)
		opt := r.options(0)
		opt.Profile.Relay.Endpoints = nil
		for port := range uint16(7) {
			opt.Profile.Relay.Endpoints = append(opt.Profile.Relay.Endpoints, Endpoint{Transport: "pipe", Host: "a", Port: port + 1})
		}
		var open atomic.Uint32 // the only port that answers
		open.Store(1)
		opt.Dialers = []transport.Dialer{&fixed{name: "pipe", with: func(ctx context.Context, to transport.Endpoint, d transport.Dial) (net.Conn, error) {
			if uint32(to.Port) != open.Load() {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return r.Dial(ctx, to, d)
		}}}
		u := start(t, opt)
		u.connected()
		p := <-r.arrived
		open.Store(7)
		began := time.Now()
		_ = p.send(ccp.TypeMove, 0, ccp.Move{Reason: ccp.MoveUpgrade}.Marshal())
		<-r.arrived
		if d := time.Since(began); d < raceMost || d > 12*time.Second {
			t.Errorf("back after %v", d)
		}
	})
}

func TestRaceEnded(t *testing.T) {
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errRefused)
	c, err := race(ctx, 3, time.Second, func(context.Context, int) (net.Conn, error) {
		t.Error("tried after the end")
		return nil, nil
	})
	if c != nil || !errors.Is(err, errRefused) {
		t.Errorf("got %v, %v", c, err)
	}
}

var errRefused = errors.New("no more")

// Each way that is tried is told of, and how it ended: by its name.
func TestTriedWays(t *testing.T) {
	r := newRelay(t)
	opt := r.options(0)
	opt.Dialers = []transport.Dialer{
		&fixed{name: "shut", with: func(context.Context, transport.Endpoint, transport.Dial) (net.Conn, error) {
			return nil, errors.New("the port is shut")
		}},
		&fixed{name: "mute", with: func(context.Context, transport.Endpoint, transport.Dial) (net.Conn, error) {
			here, there := net.Pipe()
			return here, there.Close()
		}},
	}
	opt.Profile.Relay.Endpoints = nil
	for _, d := range opt.Dialers {
		opt.Profile.Relay.Endpoints = append(opt.Profile.Relay.Endpoints, Endpoint{Transport: d.Name(), Host: "relay.example", Port: 443})
	}
	u := start(t, opt)
	waiting := u.event("waiting")
	u.mu.Lock()
	defer u.mu.Unlock()
	var tried []string
	failed := map[string]string{}
	for _, e := range u.events {
		switch e.Name {
		case "trying":
			tried = append(tried, e.Transport)
		case "failed":
			failed[e.Transport] = e.Err.Error()
		case "waiting":
			if d := cmp.Diff([]string{"shut", "mute"}, tried); d != "" || waiting.Transport != "" {
				t.Error(d, waiting)
			}
			if !strings.Contains(failed["shut"], "shut relay.example cannot be reached: the port is shut") || !strings.HasPrefix(failed["mute"], "mute: sending the Hello failed") {
				t.Error(failed)
			}
			return
		}
	}
}
