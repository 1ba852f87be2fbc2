package client

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// TestManyCallers uses everything at once from many goroutines.
func TestManyCallers(t *testing.T) {
	r := newRelay(t)
	var next sync.Mutex
	position := uint64(0)
	r.frame = func(p *peer, f ccp.Frame) {
		switch f.Type {
		case ccp.TypeSend:
			ackAll(p, f)
			next.Lock()
			position++
			n := position
			next.Unlock()
			_ = p.deliver(n, n, "echo")
		case ccp.TypeJoin:
			_ = p.send(ccp.TypeAck, f.Channel, ccp.AppendReply(nil, f.Sequence))
		}
	}
	u := start(t, r.options(ccp.AllCapabilities))
	u.connected()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				k := u.say("x")
				if i%2 == 0 {
					if _, err := k.Wait(ctx); err != nil {
						t.Error(err)
					}
				} else {
					<-k.Done()
				}
			}
		})
		wg.Go(func() {
			for range 10 {
				if err := u.Join(ctx, 4, "dev-b"); err != nil && !isKind(err, Broken) {
					t.Error(err)
				}
				_ = u.SetPresence("away")
				u.Profile()
				u.Pending()
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			u.cut()
		}
	})
	wg.Wait()
	if u.Pending() != 0 {
		t.Errorf("%d pending", u.Pending())
	}
	for range 3 {
		wg.Go(func() { u.Close() })
		wg.Go(u.Disconnect)
		wg.Go(func() {
			for {
				if _, err := u.Send(Draft{To: []string{"b"}}); errors.Is(err, ErrClosed) {
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestWaitIsCancelled(t *testing.T) {
	r := newRelay(t)
	u := start(t, r.options(0))
	k := u.say("x")
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := k.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if u.Pending() != 1 {
		t.Error("the message left the outbox")
	}
	late := make(chan error, 1)
	go func() { _, err := k.Wait(t.Context()); late <- err }()
	u.Close()
	if err := <-late; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestRequests(t *testing.T) {
	r := newRelay(t)
	var held ccp.Frame
	r.frame = func(p *peer, f ccp.Frame) {
		switch f.Type {
		case ccp.TypeJoin:
			j, err := ccp.ParseJoin(f.Payload)
			switch {
			case err != nil || f.Channel == 0:
				t.Error("join:", err)
			case f.Channel == 7:
				_ = p.send(ccp.TypeError, 7, ccp.ErrorBody{Error: ccp.CodeChannelTaken, Ack: f.Sequence}.Marshal())
			case f.Channel == 8: // answered after the next
				held = f
			case f.Channel == 9:
				if j.GroupID != "g" {
					t.Error("no group")
				}
				_ = p.send(ccp.TypeAck, 9, ccp.AppendReply(nil, f.Sequence))
				_ = p.send(ccp.TypeAck, 8, ccp.AppendReply(nil, held.Sequence))
			}
		case ccp.TypeGroupCreate:
			g, err := ccp.ParseGroupCreate(f.Payload)
			if err != nil || len(g.Members) != 1 || g.Roles["dev-b"] != "admin" {
				t.Error(g, err)
			}
			_ = p.send(ccp.TypeAck, f.Channel, ccp.AppendReply(nil, f.Sequence, ccp.Text("group_id", "g")))
		case ccp.TypeGroupInvite, ccp.TypeLeave:
			_ = p.send(ccp.TypeAck, f.Channel, ccp.AppendReply(nil, f.Sequence))
		}
	}
	u := start(t, r.options(0))
	u.connected()
	first := make(chan error, 1)
	go func() { first <- u.Join(t.Context(), 8, "x") }()
	for {
		s := u.current()
		s.mu.Lock()
		waits := len(s.calls) == 1
		s.mu.Unlock()
		if waits {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := errors.Join(u.JoinGroup(t.Context(), 9, "g"), <-first); err != nil {
		t.Error(err)
	}
	if g, err := u.CreateGroup(t.Context(), 9, "", []string{"dev-b"}, map[string]string{"dev-b": "admin"}); g != "g" || err != nil {
		t.Error(g, err)
	}
	if err := errors.Join(u.Invite(t.Context(), 9, "g", "dev-c", "member"), u.Leave(t.Context(), 9)); err != nil {
		t.Error(err)
	}
	if code, _ := IsRefused(u.Join(t.Context(), 7, "x")); code != ccp.CodeChannelTaken {
		t.Error(code)
	}
	if err := u.Join(t.Context(), 0); !isKind(err, Invalid) {
		t.Error(err)
	}
	if err := u.Join(t.Context(), 5, make([]string, 100_000)...); !isKind(err, Invalid) {
		t.Error(err)
	}
	// Nobody answers: the slot is given back with the context.
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if err := u.Join(ctx, 8, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	s := u.current()
	s.mu.Lock()
	if len(s.calls) != 0 {
		t.Error("a forgotten request stays")
	}
	s.mu.Unlock()
	// The connection ends: so do those who wait.
	go func() { first <- u.Join(t.Context(), 8, "x") }()
	for {
		s.mu.Lock()
		waits := len(s.calls) == 1
		s.mu.Unlock()
		if waits {
			break
		}
		time.Sleep(time.Millisecond)
	}
	u.Disconnect()
	if err := <-first; !isKind(err, Broken) {
		t.Error(err)
	}
}
