package client

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// A relay that has every session move on at once, or that fails behind the first delivery
// each time, is not dialled ten times a second.
func TestShortSessionsDoNotStorm(t *testing.T) {
	for name, x := range map[string]struct {
		most  int64
		ready func(*peer, uint64)
	}{
		"moves": {30, func(p *peer, _ uint64) {
			_ = p.send(ccp.TypeMove, 0, ccp.Move{Reason: ccp.MoveDrain}.Marshal())
		}},
		"fails behind a delivery": {250, func(p *peer, n uint64) {
			_ = p.deliver(n, n, "x")
			_ = p.send(ccp.TypeDeliver, 0, []byte{1})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRelay(t)
				r.ready = func(p *peer) { x.ready(p, uint64(r.dials.Load())) }
				u := start(t, r.options(0))
				time.Sleep(2 * time.Minute)
				u.close()
				if n := r.dials.Load(); n < 8 || n > x.most {
					t.Errorf("%d dials in 2 minutes", n)
				}
			})
		})
	}
}

// A session that stood for a while is followed by another one at once.
func TestLongSessionIsFollowedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t)
		r.ready = func(p *peer) {
			r.wg.Go(func() {
				time.Sleep(20 * time.Second)
				_ = p.send(ccp.TypeMove, 0, ccp.Move{Reason: ccp.MoveUpgrade}.Marshal())
			})
		}
		u := start(t, r.options(0))
		time.Sleep(5 * time.Minute)
		u.close()
		if n := r.dials.Load(); n != 15 {
			t.Errorf("%d dials in 5 minutes of sessions of 20 seconds", n)
		}
	})
}

// An idle session is a good one too: when it ends after a long outage before it, neither
// the pause has grown nor is its way left for another.
func TestIdleSessionIsFollowedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay(t)
		g := &gate{relay: r, cost: time.Microsecond}
		opt := r.options(0)
		opt.Dialers, opt.Profile.Relay.Endpoints = nil, nil
		for _, n := range []string{"http2", "websocket"} {
			opt.Dialers = append(opt.Dialers, entrance{g, n})
			opt.Profile.Relay.Endpoints = append(opt.Profile.Relay.Endpoints, Endpoint{Transport: n, Host: "relay.example", Port: 443})
		}
		g.down.Store(true)
		u := start(t, opt)
		time.Sleep(5 * time.Minute)
		g.down.Store(false)
		u.event("connected") // it may just have begun the longest pause
		time.Sleep(30 * time.Second)
		(<-r.arrived).conn.Close()
		u.event("disconnected")
		began := time.Now()
		u.connected()
		if d := time.Since(began); d > 2*backoffMin || u.current().transport != "http2" {
			t.Errorf("back after %v by %s", d, u.current().transport)
		}
	})
}

// A clock that is set back does not keep a dead connection.
func TestClockSetBack(t *testing.T) {
	for _, send := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRelay(t)
			opt := r.options(0)
			var off atomic.Int64
			opt.Now = func() time.Time { return time.Now().Add(time.Duration(off.Load())).Round(0) }
			u := start(t, opt)
			u.connected()
			if send {
				u.say("x")
			}
			time.Sleep(5 * time.Second)
			off.Store(-int64(time.Hour))
			began := time.Now()
			u.event("disconnected")
			if d := time.Since(began); d > 100*time.Second {
				t.Errorf("noticed after %v", d)
			}
		})
	}
}

// What a relay says of an account does not make the profile unreadable.
func TestLongNamesOfAnAccount(t *testing.T) {
	r := newRelay(t)
	r.ack = func(a *ccp.Established) {
		a.User = &ccp.User{ID: "u-1", Handle: strings.Repeat("h", 300)}
	}
	opt := r.options(0)
	opt.Profile.Handle = "mine"
	dir := t.TempDir()
	if err := opt.Profile.Save(dir); err != nil {
		t.Fatal(err)
	}
	u := start(t, opt)
	u.connected()
	u.close()
	p, err := LoadProfile(dir)
	if err != nil || p.UserID != "u-1" || p.Handle != "mine" {
		t.Error(p, err)
	}
}

// Refusals that a relay names take bounded memory, and what they say steers no terminal.
func TestRefusalsAreBounded(t *testing.T) {
	r := newRelay(t)
	c, err := New(r.options(0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 40 {
		if _, err := c.Send(Draft{To: []string{"b"}}); err != nil {
			t.Fatal(err)
		}
	}
	seq := uint32(0)
	if _, n, err := c.out.gather(nil, 30, 1<<20, time.Now(), &seq); n != 30 || err != nil {
		t.Fatal(n, err)
	}
	refuse := func(counter uint64) {
		c.out.acknowledge(&ccp.SendAck{Log: [8]byte{0xa1}, Refused: []ccp.Refusal{
			{Counter: counter, Device: []byte("dev\x1b[2J" + strings.Repeat("x", 1000)), Error: []byte("full\n")},
		}}, time.Now())
	}
	for range 3000 {
		for counter := range uint64(41) {
			refuse(counter)
		}
	}
	all := 0
	for i, it := range c.out.items {
		if i >= 30 && len(it.refused) > 0 {
			t.Error("a message that was not sent is refused")
		}
		for _, f := range it.refused[:min(1, len(it.refused))] {
			if f.Device != "dev?[2J"+strings.Repeat("x", 57) || f.Code != "full?" {
				t.Errorf("%q", f)
			}
		}
		all += len(it.refused)
	}
	if all == 0 || all > maxRefusals {
		t.Errorf("%d refusals are held", all)
	}
	// Answered messages give their share back.
	for counter := range uint64(30) {
		c.out.acknowledge(&ccp.SendAck{Log: [8]byte{0xa1}, Done: [][2]uint64{{counter + 1, counter + 1}}}, time.Now())
	}
	if c.out.refusals != 0 {
		t.Error(c.out.refusals)
	}
}

// Acknowledged messages that a failing store keeps do not end the client for ever: Send
// says that the store fails before they are more than a restart can read.
func TestUndeletedOutbox(t *testing.T) {
	s := &undeletable{MemoryStore: memory()}
	o, err := openOutbox(s, func() {}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	seq, failed := uint32(0), error(nil)
	for i := uint64(1); failed == nil; i++ {
		if i > 4*MaxOutbox {
			t.Fatal("goes on for ever")
		}
		it, err := (&Draft{To: []string{"b"}}).item()
		if err != nil {
			t.Fatal(err)
		}
		if _, failed = o.put(it); failed != nil {
			break
		}
		if _, _, err := o.gather(nil, 256, 1<<20, time.Now(), &seq); err != nil {
			t.Fatal(err)
		}
		o.acknowledge(&ccp.SendAck{Log: [8]byte{0xa1}, Done: [][2]uint64{{i, i}}}, time.Now())
	}
	if !isKind(failed, Invalid) || !strings.Contains(failed.Error(), "disk") {
		t.Error(failed)
	}
	o.close(ErrClosed)
	again, err := openOutbox(s, func() {}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	again.close(ErrClosed)
}

type undeletable struct{ *MemoryStore }

func (undeletable) DeleteOutbox([]uint64) error { return fmt.Errorf("no room") }

// Who waits for another program to leave a profile sees what that one has saved last.
func TestOpenProfileAfterAnother(t *testing.T) {
	r := newRelay(t)
	for range 5 {
		dir := filepath.Join(t.TempDir(), "device")
		p := r.profile(0)
		if err := p.Save(dir); err != nil {
			t.Fatal(err)
		}
		held, err := OpenStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		type opened struct {
			p   *Profile
			s   *FileStore
			err error
		}
		got := make(chan opened, 1)
		go func() {
			p, s, err := OpenProfile(dir)
			for isKind(err, InUse) {
				p, s, err = OpenProfile(dir)
			}
			got <- opened{p, s, err}
		}()
		time.Sleep(20 * time.Millisecond) // so that it waits, mostly
		p.Name = "changed"
		if err := p.Save(dir); err != nil {
			t.Fatal(err)
		}
		held.Close()
		o := <-got
		if o.err != nil || o.p.Name != "changed" {
			t.Fatal(o.p, o.err)
		}
		o.s.Close()
	}
	dir := t.TempDir()
	if _, _, err := OpenProfile(dir); !isKind(err, Invalid) || !strings.Contains(err.Error(), "no profile in") {
		t.Error(err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) > 0 {
		t.Error("a folder without a profile was written to", files)
	}
}

// A profile that is cut, empty or of another form is called damaged, with what to do; what
// a crash has left beside it goes.
func TestDamagedProfile(t *testing.T) {
	dir := t.TempDir()
	if err := newRelay(t).profile(0).Save(dir); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, profileFile)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, newFile+"123")
	for what, b := range map[string][]byte{
		"empty": nil, "cut": whole[:len(whole)/2], "zeros": make([]byte, len(whole)),
		"a list": []byte("[]"), "too large": append([]byte(strings.Repeat(" ", maxProfile)), whole...),
	} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadProfile(dir); !isKind(err, Invalid) || !strings.Contains(err.Error(), "is damaged: take it from a copy, or pair") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, file := range []string{name, left} {
		if err := os.WriteFile(file, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, s, err := OpenProfile(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Error("keys are left beside the profile", err)
	}
}
