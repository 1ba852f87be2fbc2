package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/admission"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// TestNothingOvertakesTheAck: what the relay queues while attaching comes behind it.
func TestNothingOvertakesTheAck(t *testing.T) {
	h := newHouse(t, nil)
	h.Server.opt.Relay = attachPushes{h.relay}
	c := h.join(t, newDevice(t, "dev-a", "alice")) // fails unless the Ack comes first
	f, err := c.read()
	if err != nil || f.Type != ccp.TypePresence {
		t.Errorf("%+v, %v", f, err)
	}
}

type attachPushes struct{ r *fakeRelay }

func (a attachPushes) Attach(ctx context.Context, box relay.Outbox, cursor uint64) (Link, error) {
	l, err := a.r.Attach(ctx, box, cursor)
	box.Control(ccp.TypePresence, 0, []byte(`{"entity":"x"}`))
	return l, err
}

// TestLargeBodies crosses records both ways: bodies by reference, frames over many
// records, several frames in one.
func TestLargeBodies(t *testing.T) {
	h := newHouse(t, nil)
	c := h.join(t, newDevice(t, "dev-a", "alice"))
	link := h.relay.link("dev-a")
	sizes := []int{0, 1, 100, byReference - 1, byReference, 16366, 65519, 100_000, 1 << 20, 3 << 20}
	t.Run("down", func(t *testing.T) {
		for i, n := range sizes {
			link.box.Push(relay.Delivery{Position: uint64(i + 1), Kind: ccp.TypeMsg, Channel: 9, ID: ccp.MessageID{Counter: 1}, Device: "d", User: "u", Body: fill(n)})
		}
		for i, n := range sizes {
			f, err := c.read()
			if err != nil {
				t.Fatal(err)
			}
			d, err := ccp.ParseDeliver(f.Payload)
			if err != nil || d.Position != uint64(i+1) || !bytes.Equal(d.Body, fill(n)) || f.Sequence != uint32(i+1) {
				t.Fatalf("delivery of %d bytes: position %d, sequence %d, %d bytes, %v", n, d.Position, f.Sequence, len(d.Body), err)
			}
		}
	})
	t.Run("up", func(t *testing.T) {
		for _, n := range sizes {
			if err := c.frame(ccp.TypeMsg, 9, fill(n)); err != nil {
				t.Fatal(err)
			}
			if f := <-link.frames; !bytes.Equal(f.Payload, fill(n)) {
				t.Fatalf("frame of %d bytes came as %d", n, len(f.Payload))
			}
		}
		var many []byte
		for i := range 100 {
			many, _ = ccp.Append(many, ccp.Frame{Type: ccp.TypeMsg, Channel: uint32(i), Sequence: 1, Payload: fill(i)})
		}
		for rest := many; len(rest) > 0; { // cut anywhere
			n := min(len(rest), 37)
			if err := c.raw(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		for i := range 100 {
			if f := <-link.frames; f.Channel != uint32(i) || len(f.Payload) != i {
				t.Fatalf("frame %d came as %d with %d bytes", i, f.Channel, len(f.Payload))
			}
		}
	})
	h.large.mu.Lock()
	defer h.large.mu.Unlock()
	if h.large.free != h.opt.Limits.LargeFrames {
		t.Errorf("%d bytes of large frames not given back", h.opt.Limits.LargeFrames-h.large.free)
	}
}

func fill(n int) []byte { return bytes.Repeat([]byte{byte(n), 7, byte(n >> 8)}, n/3+1)[:n] }

// TestLargeFrameSlots is the rule of limits.large_frames and T-47: over 1 MiB only
// with a slot, and the reader stops while none is free.
func TestLargeFrameSlots(t *testing.T) {
	h := newHouse(t, func(o *Options, _ *account.Options) { o.Limits.LargeFrames = 3 << 20 })
	a, b := h.join(t, newDevice(t, "dev-a", "alice")), h.join(t, newDevice(t, "dev-b", "bob"))
	half := func(c *client) []byte {
		frame, err := ccp.Append(nil, ccp.Frame{Type: ccp.TypeMsg, Channel: 1, Sequence: 9, Payload: fill(2 << 20)})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.raw(frame[:3<<19]); err != nil {
			t.Fatal(err)
		}
		return frame[3<<19:]
	}
	restA := half(a)
	done := make(chan error, 1)
	go func() {
		restB := half(b)
		done <- b.raw(restB)
	}()
	select {
	case <-h.relay.link("dev-b").frames:
		t.Fatal("second large frame got in without a slot")
	case err := <-done:
		t.Fatalf("the second was read on: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := a.raw(restA); err != nil {
		t.Fatal(err)
	}
	<-h.relay.link("dev-a").frames
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	<-h.relay.link("dev-b").frames
	c := h.join(t, newDevice(t, "dev-c", "carol"))
	head, _ := ccp.AppendHeader(nil, ccp.TypeMsg, 1, 1, 4<<20)
	if err := c.raw(append(head, fill(1<<20)...)); err == nil {
		_ = c.raw(fill(1 << 10))
	}
	if _, err := c.read(); codeOf(err) != ccp.CodeTooLarge {
		t.Errorf("a frame over the whole budget: %v", err)
	}
}

// TestUndecodable: a frame that cannot be read gets the one error and ends the session.
func TestUndecodable(t *testing.T) {
	for name, plain := range map[string][]byte{
		"unknown type":    {4, 0x7f, 0, 1, 0},
		"empty body":      {0},
		"inner truncated": {4, 5, 0, 1, 9},
		"bad json":        {5, 7, 0, 1, 1, '{'},
		"frame too long":  {0x81, 0x80, 0x80, 0x08},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nil)
			c := h.join(t, newDevice(t, "dev-a", "alice"))
			if err := c.raw(plain); err != nil {
				t.Fatal(err)
			}
			if _, err := c.read(); codeOf(err) != ccp.CodeDecode {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestW9Replacement: the newest connection wins, the older is told and ends, and its
// end undoes nothing of the newer; the gauge changes exactly once each.
func TestW9Replacement(t *testing.T) {
	m := metrics.New(metrics.Options{})
	h := newHouse(t, func(o *Options, _ *account.Options) { o.Metrics = m })
	d := newDevice(t, "dev-a", "alice")
	conn, ended := h.serve(transport.Facts{Transport: "pipe"})
	first := h.client(t, d, conn)
	first.invite = h.invite(t)
	if err := first.connect(); err != nil {
		t.Fatal(err)
	}
	second := h.dial(t, d)
	if err := second.connect(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.read(); codeOf(err) != ccp.CodeReplaced {
		t.Errorf("first connection: %v", err)
	}
	conn.Close()
	<-ended
	exchange(t, h, second)
	if n := gauge(t, m); n != 1 {
		t.Errorf("gauge %v, want 1", n)
	}
	if err := h.accounts.RevokeDevice(t.Context(), "", "dev-a"); err != nil {
		t.Fatal(err)
	}
	if _, err := second.read(); codeOf(err) != ccp.CodeRevoked {
		t.Errorf("after revocation: %v", err)
	}
	second.conn.Close()
	h.Close()
	if n := gauge(t, m); n != 0 {
		t.Errorf("gauge %v, want 0", n)
	}
}

// TestSessionsAreBounded: a full relay turns a device away for a while and changes
// nothing for it; one that is connected already may take its own place.
func TestSessionsAreBounded(t *testing.T) {
	var log bytes.Buffer
	h := newHouse(t, func(o *Options, _ *account.Options) {
		o.Limits.Sessions = 2
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.Source = netip.Addr.String
	})
	enter := func(d *device, newcomer bool) (net.Conn, chan struct{}, error) {
		conn, ended := h.serve(transport.Facts{Transport: "pipe", Remote: netip.MustParseAddrPort("203.0.113.7:77")})
		c := h.client(t, d, conn)
		if newcomer {
			c.invite = h.invite(t)
		}
		return conn, ended, c.connect()
	}
	alice, carol := newDevice(t, "dev-a", "alice"), newDevice(t, "dev-c", "carol")
	first, firstEnded, err := enter(alice, true)
	if err != nil {
		t.Fatal(err)
	}
	h.join(t, newDevice(t, "dev-b", "bob"))
	third, thirdEnded, err := enter(carol, true)
	if codeOf(err) != ccp.CodeUnavailable {
		t.Errorf("a third session: %v", err)
	}
	third.Close()
	<-thirdEnded
	if text := log.String(); !strings.Contains(text, "limits.sessions are connected") || !strings.Contains(text, "source=203.0.113.7\n") {
		t.Errorf("log: %s", text)
	}
	if _, err := h.accounts.Device(t.Context(), "dev-c"); err == nil {
		t.Error("the device was stored")
	}
	second, secondEnded, err := enter(alice, false)
	if err != nil {
		t.Errorf("taking its own place: %v", err)
	}
	first.Close()
	<-firstEnded
	second.Close()
	<-secondEnded
	if _, _, err := enter(carol, true); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func gauge(t *testing.T, m *metrics.Set) float64 {
	t.Helper()
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "commucat_connections_active" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("no gauge")
	return 0
}

// TestAPIW13Revocation is W-13 of the API sheet: the stream closes with its code, the
// token ends, the device stays out, and the gauge changes once.
func TestAPIW13Revocation(t *testing.T) {
	m := metrics.New(metrics.Options{})
	h := newHouse(t, func(o *Options, _ *account.Options) { o.Metrics = m })
	c := h.join(t, newDevice(t, "dev-a", "alice"))
	for range 2 { // a second revocation changes nothing
		if err := h.accounts.RevokeDevice(t.Context(), c.ack.User.ID, "dev-a"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.read(); codeOf(err) != ccp.CodeRevoked {
		t.Errorf("the stream: %v", err)
	}
	if _, err := h.accounts.Token(t.Context(), c.ack.Session); !errors.Is(err, account.ErrRevoked) {
		t.Errorf("the token: %v", err)
	}
	if code := codeOf(h.dial(t, c.dev).connect()); code != ccp.CodeRevoked {
		t.Errorf("coming back: %s", code)
	}
	c.conn.Close()
	h.Close()
	if n := gauge(t, m); n != 0 {
		t.Errorf("gauge %v", n)
	}
}

// TestRevocationWhileOpening: a revocation between the transaction and the Ack is
// not lost on the session.
func TestRevocationWhileOpening(t *testing.T) {
	h := newHouse(t, nil)
	d := newDevice(t, "dev-a", "alice")
	h.join(t, d).conn.Close()
	h.Server.opt.Relay = revokesAtAttach{h}
	c := h.dial(t, d)
	err := c.connect()
	if err == nil {
		_, err = c.read()
	}
	if codeOf(err) != ccp.CodeRevoked {
		t.Errorf("got %v", err)
	}
}

type revokesAtAttach struct{ h *house }

func (r revokesAtAttach) Attach(ctx context.Context, box relay.Outbox, cursor uint64) (Link, error) {
	if err := r.h.accounts.RevokeDevice(ctx, "", box.Device()); err != nil {
		return nil, err
	}
	return r.h.relay.Attach(ctx, box, cursor)
}

// TestSlowReceiver is W10: a peer that does not read holds nobody up. Media is
// dropped, control overflow ends the session, and memory stays bounded.
func TestSlowReceiver(t *testing.T) {
	h := newHouse(t, nil)
	c := h.join(t, newDevice(t, "dev-a", "alice"))
	link := h.relay.link("dev-a")
	dropped := 0
	for range 200 {
		if !link.box.Media(ccp.TypeVoiceFrame, 3, make([]byte, 1024)) {
			dropped++
		}
	}
	s := link.box.(*Session)
	s.mu.Lock()
	queued := s.queued
	s.mu.Unlock()
	if dropped == 0 || queued > h.opt.Limits.Media+4<<10 {
		t.Errorf("%d dropped, %d bytes queued", dropped, queued)
	}
	n := 0
	for link.box.Control(ccp.TypeAck, 1, make([]byte, 1024)) {
		if n++; n > 1000 {
			t.Fatal("control frames are not bounded")
		}
	}
	if _, err := io.Copy(io.Discard, c.conn); err != nil {
		t.Logf("end: %v", err)
	}
	if link.box.Push(relay.Delivery{Kind: ccp.TypeMsg, Body: []byte("x")}) {
		t.Error("an ended session takes deliveries")
	}
	<-link.gone
}

// TestDrain: clients are told to move, and the server waits for them.
func TestDrain(t *testing.T) {
	h := newHouse(t, nil)
	c := h.join(t, newDevice(t, "dev-a", "alice"))
	done := make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		h.Drain(ctx, ccp.Move{Reason: ccp.MoveDrain, WithinMS: 5000})
		close(done)
	}()
	f, err := c.read()
	if err != nil || f.Type != ccp.TypeMove {
		t.Fatalf("%+v, %v", f, err)
	}
	if m, err := ccp.ParseMove(f.Payload); err != nil || m.Reason != ccp.MoveDrain || m.WithinMS != 5000 {
		t.Errorf("%+v, %v", m, err)
	}
	select {
	case <-done:
		t.Fatal("did not wait")
	default:
	}
	c.conn.Close()
	<-done
	conn, ended := h.serve(transport.Facts{})
	<-ended
	conn.Close()
}

// TestManyPushers: pushes from many goroutines arrive whole, each sequence once.
func TestManyPushers(t *testing.T) {
	h := newHouse(t, nil)
	c := h.join(t, newDevice(t, "dev-a", "alice"))
	link := h.relay.link("dev-a")
	const pushers, each = 8, 200
	var wg sync.WaitGroup
	for p := range pushers {
		wg.Go(func() {
			for i := range each {
				link.box.Push(relay.Delivery{Position: uint64(p*each + i + 1), Kind: ccp.TypeMsg, Channel: 9, ID: ccp.MessageID{Counter: 1}, Device: "d", User: "u", Body: fill(i)})
			}
		})
	}
	seen := make(map[uint64]bool)
	for want := uint32(1); len(seen) < pushers*each; want++ {
		f, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		d, err := ccp.ParseDeliver(f.Payload)
		if err != nil || f.Sequence != want || seen[d.Position] {
			t.Fatalf("sequence %d (want %d), position %d, %v", f.Sequence, want, d.Position, err)
		}
		seen[d.Position] = true
	}
	wg.Wait()
}

// TestUnsent is SIOCOUTQ on a real socket: an old peer's rows go when the kernel has
// everything acknowledged, without a word from the peer.
func TestUnsent(t *testing.T) {
	h := compatHouse(t, false)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	gate := admission.New(admission.Options{})
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		tk, err := gate.Admit(admission.Source{Transport: "tcp"})
		if err != nil {
			t.Error(err)
			return
		}
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Error(err)
			return
		}
		tk.SetSocket(raw)
		h.Serve(&factsConn{conn, transport.Facts{Transport: "tcp", Compat: true, Context: admission.NewContext(context.Background(), tk)}})
		tk.Release()
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := h.old(t, newDevice(t, "device-1", "alice"), "")
	c.conn.Close()
	c.conn = conn
	if err := c.connect(); err != nil {
		t.Fatal(err)
	}
	link := h.relay.link("device-1")
	link.box.Push(relay.Delivery{Position: 3, Kind: ccp.TypeMsg, Channel: 9, Body: []byte("x")})
	select {
	case w := <-link.alive:
		if w != 3 {
			t.Errorf("proven up to %d", w)
		}
	case <-time.After(30 * time.Second):
		t.Error("nothing proven")
	}
}

// TestFenceRaces dials one device from many sides at once: one session is left, and
// the registry is clean after all have gone.
func TestFenceRaces(t *testing.T) {
	h := newHouse(t, nil)
	d := newDevice(t, "dev-a", "alice")
	h.join(t, d)
	var wg sync.WaitGroup
	for range 8 {
		conn, _ := h.serve(transport.Facts{Transport: "pipe"})
		mine := *d
		wg.Go(func() {
			c := h.client(t, &mine, conn)
			_ = c.connect()
			go io.Copy(io.Discard, conn)
		})
	}
	wg.Wait()
	link := h.relay.link("dev-a")
	if link == nil || link.box.(*Session).ending.Load() {
		t.Fatal("nobody is left")
	}
}

// TestW11Limits: unauthenticated input is bounded in bytes and time, whatever is
// sent and however slowly.
func TestW11Limits(t *testing.T) {
	tests := []struct {
		name string
		feed func(conn net.Conn)
	}{
		{"silence", func(net.Conn) {}},
		{"one byte a second", func(c net.Conn) {
			for _, b := range bytes.Repeat([]byte{0x80, 0x01}, 60) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}},
		{"garbage without end", func(c net.Conn) {
			for {
				if _, err := c.Write(bytes.Repeat([]byte{0xff}, 1000)); err != nil {
					return
				}
			}
		}},
		{"a hello without end", func(c net.Conn) {
			_, _ = c.Write([]byte{0xff, 0xff, 0x03, 1, 0, 1})
			for {
				if _, err := c.Write(bytes.Repeat([]byte{' '}, 1000)); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}},
		{"16 MiB announced", func(c net.Conn) { _, _ = c.Write([]byte{0x80, 0x80, 0x80, 0x08}) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, nil)
				began := time.Now()
				conn, ended := h.serve(transport.Facts{Transport: "raw"})
				var fed sync.WaitGroup
				fed.Go(func() { tt.feed(conn) })
				read := make(chan int, 1)
				go func() {
					n, _ := io.Copy(io.Discard, conn)
					read <- int(n)
				}()
				<-ended
				took := time.Since(began)
				conn.Close()
				fed.Wait()
				if took < 9*time.Second || took > 11*time.Second {
					t.Errorf("ended after %s, want 10 s ± 10 %%", took)
				}
				if n := <-read; n != 0 {
					t.Errorf("%d bytes answered", n)
				}
			})
		})
	}
}

// TestHalfOpen stops at each step of a good handshake: the deadline ends it and
// nothing is left.
func TestHalfOpen(t *testing.T) {
	for step := range 3 {
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, nil)
				began := time.Now()
				conn, ended := h.serve(transport.Facts{})
				c := h.client(t, newDevice(t, "dev-a", "alice"), conn)
				c.invite = h.invite(t)
				before := h.dir.Dump()
				if step > 0 {
					if err := c.first(); err != nil {
						t.Fatal(err)
					}
				}
				if step > 1 {
					if err := c.third(); err != nil {
						t.Fatal(err)
					}
				}
				<-ended
				if took := time.Since(began); took > 11*time.Second {
					t.Errorf("ended after %s", took)
				}
				if diff := cmp.Diff(before, h.dir.Dump()); diff != "" || h.relay.attached() != 0 {
					t.Error("something was written", diff)
				}
			})
		})
	}
}
