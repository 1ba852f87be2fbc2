package admission

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func from(addr string) Source {
	return Source{Transport: "http2", Addr: netip.MustParseAddr(addr)}
}

// TestW06PortDoesNotMatter: the identity is the address prefix, so a new port
// (W-06, W11) or a new address of the same network gives no fresh budget.
func TestW06PortDoesNotMatter(t *testing.T) {
	for _, tc := range []struct {
		name string
		addr func(i int) string
		max  int
	}{
		{"one IPv4 address", func(int) string { return "203.0.113.7" }, 60},
		{"IPv4 mapped", func(int) string { return "::ffff:203.0.113.7" }, 60},
		{"one /24", func(i int) string { return fmt.Sprintf("203.0.113.%d", i%250) }, 240},
		{"one /64", func(i int) string { return fmt.Sprintf("2001:db8::%x", i+1) }, 60},
		{"one /48", func(i int) string { return fmt.Sprintf("2001:db8:0:%x::1", i) }, 240},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := New(Options{})
				in := 0
				for i := range 1000 {
					if k, err := g.Admit(from(tc.addr(i))); err == nil {
						in++
						k.Release()
					} else if !errors.Is(err, ErrRate) {
						t.Fatal(err)
					}
				}
				if in != tc.max {
					t.Errorf("%d admitted, want %d", in, tc.max)
				}
				if _, err := g.Admit(from("198.51.100.1")); err != nil {
					t.Errorf("another prefix: %v", err)
				}
				time.Sleep(time.Second)
				if _, err := g.Admit(from(tc.addr(1))); err != nil {
					t.Errorf("after a second: %v", err)
				}
			})
		})
	}
}

func TestTransportsHaveSeparateBudgets(t *testing.T) {
	g := New(Options{})
	liar := Source{Transport: "onion", Addr: netip.MustParseAddr("203.0.113.7")}
	for range 1000 {
		if k, err := g.Admit(liar); err == nil {
			defer k.Release()
		}
	}
	if _, err := g.Admit(from("203.0.113.7")); err != nil {
		t.Errorf("the same address over another transport: %v", err)
	}
}

func TestHiddenSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Transport: Budget{Burst: 100, Rate: 1}})
		count := func(src Source) (n int) {
			for range 200 {
				if k, err := g.Admit(src); err == nil {
					n++
					k.Release()
				}
			}
			return n
		}
		if n := count(Source{Transport: "onion", Hidden: true, Circuit: "c1", Addr: netip.MustParseAddr("127.0.0.1")}); n != 60 {
			t.Errorf("one circuit: %d", n)
		}
		if n := count(Source{Transport: "onion", Hidden: true}); n != 40 {
			t.Errorf("rest of the transport's budget: %d", n)
		}
		if n := count(Source{Transport: "pt", Hidden: true}); n != 100 {
			t.Errorf("another transport: %d", n)
		}
	})
}

func TestConcurrentUnauthenticated(t *testing.T) {
	g := New(Options{Narrow: Budget{Rate: 1e6, Burst: 1e6, Open: 5}, Wide: Budget{Rate: 1e6, Burst: 1e6}})
	var held []*Ticket
	for range 5 {
		k, err := g.Admit(from("203.0.113.7"))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, k)
	}
	if _, err := g.Admit(from("203.0.113.7")); !errors.Is(err, ErrConcurrent) {
		t.Fatalf("sixth: %v", err)
	}
	if _, err := held[0].Stream(); !errors.Is(err, ErrConcurrent) {
		t.Fatalf("a stream beyond the limit: %v", err)
	}
	held[0].Authenticated()
	held[0].Authenticated()
	s, err := held[0].Stream()
	if err != nil {
		t.Fatal(err)
	}
	if got := g.Stats().Open; got != 5 {
		t.Errorf("open = %d", got)
	}
	s.Authenticated()
	s.Release()
	s.Release()
	for _, k := range held {
		k.Release()
		k.Release()
	}
	if got := g.Stats(); got.Open != 0 || got.Memory != 0 {
		t.Errorf("left over: %+v", got)
	}
}

// TestStreamsAreChargedByRate: one connection opens no more than many would; more
// requests of a stream that was charged are free.
func TestStreamsAreChargedByRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{Narrow: Budget{Rate: 2, Burst: 5}})
		conn, err := g.Admit(from("203.0.113.7"))
		if err != nil {
			t.Fatal(err)
		}
		opened := func() (n int) {
			for range 20 {
				s, err := conn.Stream()
				if err == nil {
					n++
					s.Release()
				} else if !errors.Is(err, ErrRate) {
					t.Fatal(err)
				}
			}
			return n
		}
		if n := opened(); n != 5 { // the first is the connection's
			t.Errorf("%d streams of a burst of 5", n)
		}
		if _, err := g.Admit(from("203.0.113.7")); !errors.Is(err, ErrRate) {
			t.Errorf("a connection after the streams: %v", err)
		}
		for range 20 {
			s, err := conn.Request()
			if err != nil {
				t.Fatal(err)
			}
			s.Release()
		}
		time.Sleep(time.Second)
		if n := opened(); n != 2 {
			t.Errorf("%d streams a second later, want 2", n)
		}
		conn.Release()
	})
}

func TestStreamKeepsItsPlaceAfterTheConnection(t *testing.T) {
	g := New(Options{})
	conn, _ := g.Admit(from("203.0.113.7"))
	s, _ := conn.Stream()
	conn.Release()
	if got := g.Stats().Open; got != 2 { // a child holds its parent
		t.Errorf("open = %d", got)
	}
	s.Release()
	if got := g.Stats().Open; got != 0 {
		t.Errorf("open = %d", got)
	}
	s.Hold() // a stream that outlived its request
	if got := g.Stats().Open; got != 1 {
		t.Errorf("a stream without its request counts %d", got)
	}
	s.Authenticated()
	if got := g.Stats().Open; got != 0 {
		t.Errorf("open = %d", got)
	}
	s.Release()
	s.Hold() // has authenticated
	if got := g.Stats().Open; got != 0 {
		t.Errorf("open = %d", got)
	}
	s.Release()
	if got := g.Stats().Open; got != 0 {
		t.Errorf("open = %d", got)
	}
}

// TestW11StreamsOutliveTheirRequests: what goes on without its request (WebSocket,
// event stream, long-poll) stays within the budget of its source.
func TestW11StreamsOutliveTheirRequests(t *testing.T) {
	g := New(Options{Narrow: Budget{Open: 5}})
	conn, err := g.Admit(from("203.0.113.7"))
	if err != nil {
		t.Fatal(err)
	}
	var sessions []*Ticket
	for range 10 {
		s, err := conn.Stream()
		if err != nil {
			break
		}
		s.Release() // the request has been answered
		s.Hold()    // its session begins
		sessions = append(sessions, s)
	}
	if len(sessions) != 4 {
		t.Errorf("%d streams beside their connection, budget 5", len(sessions))
	}
	for _, s := range sessions {
		s.Release()
	}
	conn.Release()
	if got := g.Stats().Open; got != 0 {
		t.Errorf("open = %d", got)
	}
}

// TestW11MemoryBeforeAuthentication: 64 KiB a connection and a limit for all.
func TestW11MemoryBeforeAuthentication(t *testing.T) {
	g := New(Options{Memory: 100 << 10})
	a, _ := g.Admit(from("203.0.113.7"))
	b, _ := g.Admit(from("198.51.100.7"))
	if err := a.Reserve(64 << 10); err != nil {
		t.Fatal(err)
	}
	if err := a.Reserve(1); !errors.Is(err, ErrMemory) {
		t.Errorf("over the connection's limit: %v", err)
	}
	if err := b.Reserve(37 << 10); !errors.Is(err, ErrMemory) {
		t.Errorf("over the relay's limit: %v", err)
	}
	a.Authenticated()
	if err := a.Reserve(1 << 20); err != nil {
		t.Errorf("after authentication: %v", err)
	}
	if err := b.Reserve(37 << 10); err != nil {
		t.Errorf("after memory was given back: %v", err)
	}
	b.Free(7 << 10)
	if m := g.Stats().Memory; m != 30<<10 {
		t.Errorf("memory = %d", m)
	}
	a.Release()
	b.Release()
	if m := g.Stats().Memory; m != 0 {
		t.Errorf("memory = %d", m)
	}
}

// TestW11Deadline: every connection has 10 s ± 10 %, drawn for itself.
func TestW11Deadline(t *testing.T) {
	g := New(Options{Narrow: Budget{Burst: 1000, Rate: 1}})
	seen := map[time.Duration]bool{}
	for range 100 {
		now := time.Now()
		k, err := g.Admit(from("203.0.113.7"))
		if err != nil {
			t.Fatal(err)
		}
		d := k.Deadline().Sub(now)
		k.Release()
		if d < 9*time.Second || d > 11*time.Second+time.Millisecond {
			t.Fatalf("deadline after %v", d)
		}
		seen[d] = true
	}
	if len(seen) < 90 {
		t.Errorf("only %d different deadlines", len(seen))
	}
}

func TestWorkBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{})
		k, _ := g.Admit(from("203.0.113.7"))
		k.Spend(1100 * time.Millisecond)
		if _, err := g.Admit(from("203.0.113.7")); !errors.Is(err, ErrWork) {
			t.Fatalf("got %v", err)
		}
		if _, err := k.Stream(); !errors.Is(err, ErrWork) {
			t.Fatalf("got %v", err)
		}
		time.Sleep(1500 * time.Millisecond)
		if _, err := g.Admit(from("203.0.113.7")); err != nil {
			t.Fatal(err)
		}
	})
}

// TestT45FloodLeavesOthersRoom: 20,000 connections a second from 1,000 prefixes;
// honest clients from other prefixes come in.
func TestT45FloodLeavesOthersRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{})
		honest, refused, flood := 0, 0, 0
		for ms := range 5000 {
			for i := range 20 {
				n := (ms*20 + i) % 1000
				if k, err := g.Admit(from(fmt.Sprintf("10.%d.%d.1", n/250, n%250))); err == nil {
					flood++
					time.AfterFunc(10*time.Second, k.Release)
				}
			}
			if ms%10 == 0 {
				n := ms / 10
				k, err := g.Admit(from(fmt.Sprintf("172.16.%d.1", n%256)))
				if err != nil {
					refused++
				} else {
					honest++
					k.Authenticated()
					k.Release()
				}
			}
			time.Sleep(time.Millisecond)
		}
		if rate := float64(honest) / float64(honest+refused); rate < .99 {
			t.Errorf("honest clients: %.3f (flood: %d admitted)", rate, flood)
		}
		t.Logf("flood: %d of 100000 admitted, honest: %d of %d", flood, honest, honest+refused)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if s := g.Stats(); s.Open != 0 {
			t.Errorf("open = %d", s.Open)
		}
	})
}

func TestTableIsBounded(t *testing.T) {
	g := New(Options{Prefixes: 100, Burst: 1e6, Rate: 1e6})
	var held []*Ticket
	for i := range 10000 {
		k, err := g.Admit(from(fmt.Sprintf("10.%d.%d.1", i/250, i%250)))
		if err != nil {
			t.Fatal(err)
		}
		if i < 300 {
			held = append(held, k)
		} else {
			k.Release()
		}
	}
	if n := g.Stats().Prefixes; n > 100+2*len(held) {
		t.Errorf("%d prefixes", n)
	}
	for _, k := range held {
		k.Release()
	}
	if s := g.Stats(); s.Open != 0 || s.Prefixes > 100 {
		t.Errorf("left over: %+v", s)
	}
}

// TestW11MoreClientsThanTheTableRemembers: sources are counted however many other
// clients are connected.
func TestW11MoreClientsThanTheTableRemembers(t *testing.T) {
	g := New(Options{Prefixes: 10, Burst: 1e6, Rate: 1e6, Narrow: Budget{Burst: 3, Rate: .001}})
	for i := range 100 {
		k, err := g.Admit(from(fmt.Sprintf("10.%d.0.1", i)))
		if err != nil {
			t.Fatal(err)
		}
		k.Authenticated() // and stays connected
	}
	in := 0
	for range 50 {
		if k, err := g.Admit(from("203.0.113.7")); err == nil {
			in++
			k.Release()
		}
	}
	if in != 3 {
		t.Errorf("a flood got in %d times, budget 3", in)
	}
}

// TestProperties drives a gate with random calls and checks its books.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1e9, 0)
		opt := Options{
			Prefixes: rapid.IntRange(1, 8).Draw(t, "prefixes"), Open: 20, Burst: 50, Rate: 10, Memory: 4096, MemoryEach: 1024,
			Narrow: Budget{Open: 6, Burst: 10, Rate: 2}, Wide: Budget{Open: 9, Burst: 15, Rate: 3},
			Clock: func() time.Time { return now },
		}
		g := New(opt)
		var live []*Ticket
		pick := func() *Ticket {
			if len(live) == 0 {
				return nil
			}
			return live[rapid.IntRange(0, len(live)-1).Draw(t, "i")]
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 7).Draw(t, "op") {
			case 0, 1, 2:
				a := netip.AddrFrom4([4]byte{10, 0, rapid.Byte().Draw(t, "net") % 4, rapid.Byte().Draw(t, "host") % 4})
				if k, err := g.Admit(Source{Transport: "t", Addr: a}); err == nil {
					live = append(live, k)
				}
			case 3:
				if k, err := pick().Stream(); err == nil && k != nil {
					live = append(live, k)
				}
			case 4:
				pick().Authenticated()
			case 5:
				_ = pick().Reserve(rapid.IntRange(1, 600).Draw(t, "n"))
			case 6:
				if len(live) > 0 {
					i := rapid.IntRange(0, len(live)-1).Draw(t, "drop")
					live[i].Release()
					live = append(live[:i], live[i+1:]...)
				}
			case 7:
				now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			}
			s := g.Stats()
			if s.Open < 0 || s.Open > opt.Open || s.Memory < 0 || s.Memory > opt.Memory || s.Prefixes > opt.Prefixes+2*len(live) {
				t.Fatalf("broken books: %+v", s)
			}
		}
		for _, k := range live {
			k.Release()
		}
		if s := g.Stats(); s.Open != 0 || s.Memory != 0 {
			t.Fatalf("left over: %+v", s)
		}
		n := 0
		for e := g.table.unused.next; e != &g.table.unused; e = e.next {
			if n++; e.refs != 0 || e.open != 0 || g.table.entries[e.key] != e {
				t.Fatalf("bad entry %+v", e)
			}
		}
		if n != g.table.len() || n != g.table.idle || n > opt.Prefixes {
			t.Fatalf("%d unused of %d, %d counted", n, g.table.len(), g.table.idle)
		}
	})
}

func TestNilTicket(t *testing.T) {
	var k *Ticket
	k.Authenticated()
	k.Release()
	k.Hold()
	k.Spend(time.Second)
	k.Free(1)
	k.SetSocket(nil)
	if err := k.Reserve(1 << 30); err != nil || !k.Proven() || !k.Deadline().IsZero() {
		t.Error("a nil ticket limits")
	}
	if _, ok := k.Unsent(); ok {
		t.Error("unsent of nothing")
	}
	if FromContext(context.Background()) != nil || FromContext(nil) != nil { //nolint:staticcheck // nil is allowed here
		t.Error("ticket out of nowhere")
	}
	if s, err := k.Stream(); s != nil || err != nil {
		t.Error("stream of nothing")
	}
}

func BenchmarkAdmit(b *testing.B) {
	g := New(Options{Burst: 1e12, Rate: 1e12})
	src := from("203.0.113.7")
	b.ReportAllocs()
	for b.Loop() {
		if k, err := g.Admit(src); err == nil {
			k.Release()
		}
	}
}

// TestClaimedAddresses: a transport that invents addresses uses up its own budget and
// leaves the others' alone.
func TestClaimedAddresses(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	g := New(Options{Rate: 1000, Burst: 1000, Open: 1000, Clock: func() time.Time { return now }})
	admitted := 0
	for i := range 5000 {
		addr := netip.AddrFrom4([4]byte{byte(i >> 8), byte(i), byte(i >> 4), 1})
		if _, err := g.Admit(Source{Transport: "plugin", Addr: addr, Claimed: true}); err == nil {
			admitted++
		}
	}
	if admitted == 0 || admitted > 500 {
		t.Errorf("%d of 1000 places went to one transport's claims", admitted)
	}
	if _, err := g.Admit(Source{Transport: "https", Addr: netip.MustParseAddr("192.0.2.9")}); err != nil {
		t.Errorf("a client of another transport: %v", err)
	}
}
