package client

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// gate is a relay's front that takes rate connections a second, one after the other, and
// none while it is down.
type gate struct {
	*relay
	down atomic.Bool
	mu   sync.Mutex
	free time.Time // when the next one may come in
	cost time.Duration
	work int // connections taken, wanted or not
}

func (g *gate) take() (wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.free.Before(now) {
		g.free = now
	}
	g.free = g.free.Add(g.cost)
	g.work++
	return g.free.Sub(now)
}

// entrance is one of the transports that lead to the gate.
type entrance struct {
	*gate
	name string
}

func (e entrance) Name() string { return e.name }

func (e entrance) Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	if e.down.Load() {
		return nil, errors.New("connection refused")
	}
	t := time.NewTimer(e.take())
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return e.relay.Dial(ctx, to, with)
}

// After a relay was down for a moment its clients come back about as fast as it can take
// them: they do not knock by every way at once while it works off the crowd.
func TestHerd(t *testing.T) {
	t.Run("outage", func(t *testing.T) {
		returning(t, func(g *gate, all []*peer) {
			g.down.Store(true)
			for _, p := range all {
				p.conn.Close()
			}
			time.Sleep(2 * time.Second)
		})
	})
	t.Run("upgrade", func(t *testing.T) {
		returning(t, func(_ *gate, all []*peer) {
			for _, p := range all {
				_ = p.send(ccp.TypeMove, 0, ccp.Move{Reason: ccp.MoveUpgrade}.Marshal())
			}
		})
	})
}

func returning(t *testing.T, end func(*gate, []*peer)) {
	const herd = 100
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t)
		g := &gate{relay: r, cost: time.Microsecond}
		names := []string{"http2", "websocket", "sse", "longpoll"}
		var (
			mu    sync.Mutex
			again []time.Duration
			up    time.Time
		)
		var all []*Client
		ctx, stop := context.WithCancel(t.Context())
		for range herd {
			opt := r.options(0)
			opt.Dialers, opt.Profile.Relay.Endpoints = nil, nil
			for _, n := range names {
				opt.Dialers = append(opt.Dialers, entrance{g, n})
				opt.Profile.Relay.Endpoints = append(opt.Profile.Relay.Endpoints, Endpoint{Transport: n, Host: "relay.example", Port: 443})
			}
			opt.OnEvent = func(e Event) {
				if e.Name == "connected" && !up.IsZero() {
					mu.Lock()
					again = append(again, time.Since(up))
					mu.Unlock()
				}
			}
			c, err := New(opt)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
			go func() { _ = c.Run(ctx) }()
			if _, err := c.Connected(ctx); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(20 * time.Second)
		r.mu.Lock()
		peers := r.peers
		r.peers = nil
		r.mu.Unlock()
		g.mu.Lock()
		g.cost = 50 * time.Millisecond
		g.mu.Unlock()
		end(g, peers)
		g.mu.Lock()
		g.work = 0
		g.mu.Unlock()
		up = time.Now()
		g.down.Store(false)
		time.Sleep(60 * time.Second)
		mu.Lock()
		slices.Sort(again)
		if len(again) != herd || again[herd-1] > 2*herd*50*time.Millisecond || g.work > 3*herd/2 {
			t.Errorf("%d of %d are back, after %v, by %d connections", len(again), herd, again, g.work)
		}
		mu.Unlock()
		stop()
		for _, c := range all {
			c.Close()
		}
	})
}
