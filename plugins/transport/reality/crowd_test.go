package reality

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestSettle: an end waits for those who may be clients, no longer than they may take,
// and not for strangers.
func TestSettle(t *testing.T) {
	turn := func(x *exchange, m mode) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.turn(m)
	}
	for _, tc := range []struct {
		name string
		run  func(c *crowd, x *exchange)
		want time.Duration
	}{
		{"a stranger", func(_ *crowd, x *exchange) { turn(x, relaying) }, 0},
		{"silence", func(*crowd, *exchange) {}, beginTime},
		{"gone", func(c *crowd, x *exchange) { time.Sleep(time.Second); c.part(x) }, time.Second},
		{"known late", func(_ *crowd, x *exchange) { time.Sleep(time.Second); turn(x, relaying) }, time.Second},
		{"a client that hangs", func(_ *crowd, x *exchange) { turn(x, keeping) }, closeGrace},
		{"a client that is handed over", func(c *crowd, x *exchange) {
			turn(x, keeping)
			time.Sleep(time.Second)
			c.under(1)
			c.part(x)
			time.Sleep(time.Second)
			c.under(-1)
		}, 2 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(16)
				a, b := net.Pipe()
				defer a.Close()
				defer b.Close()
				x := newExchange(a, netip.Addr{}, func() {})
				if !c.join(x) {
					t.Fatal("not let in")
				}
				began := time.Now()
				go tc.run(c, x)
				synctest.Wait()
				c.settle(t.Context())
				if took := time.Since(began); took != tc.want {
					t.Errorf("took %v, want %v", took, tc.want)
				}
			})
		})
	}
}

// TestSpared: who has shown the key gives way last, but not once a handshake should be over.
func TestSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(2)
		come := func(m mode) *exchange {
			a, b := net.Pipe()
			t.Cleanup(func() { a.Close(); b.Close() })
			x := newExchange(a, netip.Addr{}, func() {})
			if !c.join(x) {
				t.Fatal("not let in")
			}
			x.mu.Lock()
			defer x.mu.Unlock()
			x.turn(m)
			return x
		}
		here := func(x *exchange) bool { c.mu.Lock(); defer c.mu.Unlock(); return slices.Contains(c.members, x) }
		client := come(keeping)
		time.Sleep(time.Second)
		stranger := come(relaying)
		come(relaying)
		if !here(client) || here(stranger) {
			t.Error("a client gave way to a stranger")
		}
		time.Sleep(spareTime)
		come(undecided)
		if here(client) {
			t.Error("a handshake that never ends keeps its place")
		}
	})
}

// TestUnmet: who came first and has not had its turn does not give way to those who had
// theirs and keep silent, and what comes and goes leaves nothing behind.
func TestUnmet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(4)
		come := func(from string, met bool) *exchange {
			time.Sleep(time.Millisecond)
			a, b := net.Pipe()
			t.Cleanup(func() { a.Close(); b.Close() })
			x := newExchange(a, netip.MustParseAddr(from), func() {})
			x.met.Store(met)
			if !c.join(x) {
				t.Fatal("not let in")
			}
			return x
		}
		waiting := come("198.51.100.1", false)
		come("192.0.2.1", true)
		come("192.0.2.2", true)
		single := come("203.0.113.1", true)
		for range 2 { // of the network that has most
			come("2001:db8::1", false)
		}
		if !slices.Contains(c.members, waiting) || !slices.Contains(c.members, single) || len(c.members) != 4 {
			t.Errorf("%d are left, not those who should be", len(c.members))
		}
		for len(c.members) > 0 {
			x := c.members[0]
			c.part(x)
			c.part(x)
		}
		if len(c.networks) > 0 {
			t.Errorf("%d networks without members", len(c.networks))
		}
	})
}

// TestSettleCut: nobody waits for an end that has come.
func TestSettleCut(t *testing.T) {
	c := newCrowd(16)
	c.under(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.settle(ctx)
}
