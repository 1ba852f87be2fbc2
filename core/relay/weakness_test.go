package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// The tests of this file carry the numbers of ccp1.md section 13 (W6 …) and of
// api-and-operations.md section 13.4 (W33, W34, W43).

func TestW6JoinTouchesOnlyOwnTable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, c, x := b.connect("a.1", allCaps, 0), b.connect("c.1", allCaps, 0), b.connect("x.1", allCaps, 0)
		a.must(ccp.TypeJoin, 9, `{"members":["c.1"],"relay":true}`)
		settle()
		a.must(ccp.TypeMsg, 9, "hello")
		c.must(ccp.TypeMsg, 9, "there")
		settle()
		check(t, "c", c.bodies(), "hello")
		check(t, "a", a.bodies(), "there")
		// A third device cannot take the channel over, nor write into it.
		x.takeControls()
		x.must(ccp.TypeJoin, 9, `{"members":["a.1","c.1"]}`)
		settle()
		check(t, "hijack", x.errors(), "channel_taken")
		x.must(ccp.TypeMsg, 9, "spam")
		settle()
		check(t, "spam", x.errors(), "no_channel")
		x.must(ccp.TypeJoin, 9, `{"members":["x.1"]}`)
		settle()
		x.must(ccp.TypeMsg, 9, "spam")
		x.must(ccp.TypeLeave, 9, `{}`)
		settle()
		a.must(ccp.TypeMsg, 9, "still")
		settle()
		check(t, "c", c.bodies(), "still")
		check(t, "a", a.bodies(), "")
		// Leave affects the leaver alone; its frames do not reach a table it left.
		c.must(ccp.TypeLeave, 9, `{}`)
		settle()
		a.takeControls()
		a.must(ccp.TypeMsg, 9, "gone")
		settle()
		check(t, "after leave", a.errors(), "unreachable")
		check(t, "c", c.bodies(), "")
	})
}

func TestW6TableLimits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, func(o *Options) { o.Limits.Channels, o.Limits.ChannelsByJoiner = 5, 2 })
		defer b.stop()
		a, c := b.connect("a.1", allCaps, 0), b.connect("c.1", allCaps, 0)
		for ch := range uint32(6) {
			a.must(ccp.TypeJoin, 10+ch, `{"members":["c.1"]}`)
			settle()
		}
		check(t, "own table", a.errors(), "limit")
		reached := 0
		for ch := range uint32(5) {
			a.must(ccp.TypeMsg, 10+ch, fmt.Sprint(ch))
			settle()
			reached += len(c.take())
		}
		if reached != 2 {
			t.Errorf("%d channels in the other's table, want 2", reached)
		}
	})
}

func TestContactPolicy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, func(o *Options) { o.Limits.NewContacts = 3 })
		defer b.stop()
		a := b.connect("a.1", allCaps, 0)
		for _, d := range []string{"c.1", "d.1", "e.1", "f.1"} {
			b.acc.add(d, allCaps)
		}
		a.send("c.1", "1")
		a.send("nobody", "2") // costs as much as a name that exists
		a.send("d.1", "3")
		settle()
		check(t, "unknown", a.errors(), "unreachable")
		a.send("e.1", "4")
		settle()
		check(t, "over the rate", a.errors(), "unreachable")
		a.send("c.1", "5") // known contacts are free
		settle()
		check(t, "known", a.acked(), "5-5")
		after(9 * time.Hour)
		a.send("f.1", "6")
		settle()
		check(t, "next day", a.acked(), "6-6")
		if b.store.depth("e.1") != 0 || b.store.depth("c.1") != 2 {
			t.Error("rows")
		}
	})
}

func TestContactFriends(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, func(o *Options) {
			o.Contact = OnlyFriends
			o.Friends = func(_ context.Context, owner, peer string) (bool, error) { return owner == "u-c" && peer == "u-a", nil }
		})
		defer b.stop()
		a := b.connect("a.1", allCaps, 0)
		b.acc.add("c.1", allCaps)
		b.acc.add("d.1", allCaps)
		a.send("c.1", "1")
		a.send("d.1", "2")
		a.send("nobody", "3")
		settle()
		if b.store.depth("c.1") != 1 || b.store.depth("d.1") != 0 {
			t.Error("rows")
		}
		check(t, "refused alike", a.errors(), "unreachable unreachable")
	})
}

func TestOpenChannelsLetTwoExistingClientsMeet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, func(o *Options) { o.Compat.OpenChannels = true })
		defer b.stop()
		box := func(d string) *peer { return b.connectBox(&fakeBox{device: d, session: d, plain: true}, 0) }
		a, c := box("a.1"), box("c.1")
		a.must(ccp.TypeJoin, 7, `{"members":["a.1"],"relay":true}`)
		settle()
		c.must(ccp.TypeJoin, 7, `{"members":["c.1"],"relay":true}`)
		settle()
		// Each needs a frame on the channel before its user can write there.
		for _, p := range []*peer{a, c} {
			joined := false
			for _, m := range p.takeControls() {
				joined = joined || m.t == ccp.TypeJoin && m.channel == 7 && strings.Contains(m.payload, `"members"`)
			}
			if !joined {
				t.Errorf("%s saw no Join", p.device)
			}
		}
		a.must(ccp.TypeMsg, 7, "hi")
		c.must(ccp.TypeMsg, 7, "ho")
		settle()
		check(t, "c", c.bodies(), "hi")
		check(t, "a", a.bodies(), "ho")
		check(t, "plain ack", a.takeControls()[0].payload, `{"ack":3}`)
		a.must(ccp.TypeLeave, 7, `{}`)
		settle()
		c.must(ccp.TypeMsg, 7, "alone")
		settle()
		check(t, "after leave", a.bodies(), "")
	})
}

func TestW9TakeoverAndFencing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		s := b.connect("s.1", allCaps, 0)
		first := b.connect("a.1", allCaps, 0)
		second := b.connect("a.1", allCaps, 0)
		settle()
		check(t, "older", first.closedWith(), ccp.CodeReplaced)
		first.link.Detach() // the end of the first must not unregister the second
		if !b.hub.Connected("a.1") {
			t.Fatal("second connection unregistered")
		}
		s.send("a.1", "x")
		settle()
		check(t, "second", second.bodies(), "x")
		check(t, "first", first.bodies(), "")
		if err := first.frame(ccp.TypeMsg, 1, ""); !errors.Is(err, ErrClosed) {
			t.Errorf("the old link still handles frames: %v", err)
		}
		// A lower fence loses, whatever the order of arrival.
		old := &fakeBox{device: "a.1", session: "old", caps: allCaps, fence: 1}
		if _, err := b.hub.Attach(t.Context(), old, 0); !errors.Is(err, ErrReplaced) {
			t.Errorf("lower fence attached: %v", err)
		}
		// Another node took the device: the next renewal ends this session.
		b.store.set(func() { b.store.fences["a.1"] = storage.Route{Device: "a.1", Node: "other", Fence: 1 << 60} })
		after(11 * time.Second)
		check(t, "other node", second.closedWith(), ccp.CodeReplaced)
		if b.hub.Connected("a.1") {
			t.Error("still attached")
		}
	})
}

func TestW9RevokeEndsTheSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		s, a := b.connect("s.1", allCaps, 0), b.connect("a.1", allCaps, 0)
		s.send("a.1", "x")
		settle()
		b.acc.mu.Lock()
		d := b.acc.devices["a.1"]
		d.Active = false
		b.acc.devices["a.1"] = d
		b.acc.mu.Unlock()
		if err := b.hub.Drop(t.Context(), "u-a", "a.1"); err != nil {
			t.Fatal(err)
		}
		check(t, "closed", a.closedWith(), ccp.CodeRevoked)
		s.takeControls()
		s.send("a.1", "y")
		settle()
		check(t, "gone", s.errors(), ccp.CodeGone)
	})
}

func TestW10SlowConsumerIsBoundedAndBlocksNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		s, slow, quick := b.connect("s.1", allCaps, 0), b.connect("a.1", allCaps, 0), b.connect("c.1", allCaps, 0)
		for i := range 2000 {
			s.send("a.1", strings.Repeat("x", 300))
			s.send("c.1", fmt.Sprint(i))
			if i%100 == 99 {
				settle()
				d := quick.take()
				if len(d) != 100 {
					t.Fatalf("the quick one got %d", len(d))
				}
				quick.done(d[99].Position)
			}
		}
		settle()
		if n := len(slow.take()); n != 256 {
			t.Errorf("%d in flight, want 256", n)
		}
		slow.link.out.mu.Lock()
		if n := len(slow.link.out.backlog); n > backlogMost || slow.link.out.live && n == 0 {
			t.Errorf("backlog %d live %v", n, slow.link.out.live)
		}
		slow.link.out.mu.Unlock()
		if b.store.depth("a.1") != 2000 {
			t.Error("rows")
		}
	})
}

func TestW13QueueSurvivesUntilDone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		s := b.connect("s.1", allCaps, 0)
		b.acc.add("a.1", allCaps)
		for i := range 300 {
			s.send("a.1", fmt.Sprint(i))
		}
		settle()
		for range 3 { // connections that die before Done lose nothing
			a := b.connect("a.1", allCaps, 0)
			settle()
			if d := a.take(); len(d) != 256 || string(d[0].Body) != "0" {
				t.Fatalf("got %d", len(d))
			}
			a.link.Detach()
		}
		if b.store.depth("a.1") != 300 {
			t.Error("rows deleted before Done")
		}
	})
}

func TestW14ErrorsKeepTheSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a := b.connect("a.1", 0, 0)
		a.must(ccp.TypeMsg, 77, "x")
		settle()
		cs := a.takeControls()
		if len(cs) != 1 || cs[0].t != ccp.TypeError || cs[0].channel != 77 || cs[0].payload != `{"ack":1,"error":"no_channel"}` {
			t.Fatalf("%+v", cs)
		}
		a.must(ccp.TypeJoin, 77, `[]`)
		a.must(ccp.TypeGroupInvite, 77, `{"group_id":"nope","device":"b"}`)
		a.must(ccp.TypeCallAnswer, 77, `{}`)
		settle()
		check(t, "codes", a.errors(), "bad_request no_group no_channel")
		check(t, "open", a.closedWith(), "")
		a.must(ccp.TypeJoin, 77, `{"members":["a.1"]}`)
		settle()
		check(t, "ack", a.takeControls()[0].payload, `{"ack":5}`)
	})
}

func TestW15SendersAreCheckedAndFilled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, c := b.connect("a.1", allCaps, 0), b.connect("c.1", 0, 0)
		a.must(ccp.TypeJoin, 9, `{"members":["c.1"]}`)
		settle()
		a.takeControls()
		a.must(ccp.TypeTyping, 9, `{"typing":true}`)
		a.must(ccp.TypeTyping, 9, `{"device":"c.1"}`)
		a.must(ccp.TypeTyping, 9, `{"device":"a.1","sender":"c.1"}`)
		a.must(ccp.TypeGroupEvent, 9, `{"sender":"c.1"}`)
		a.must(ccp.TypeGroupEvent, 9, `{"b":1,"a":2}`)
		settle()
		check(t, "errors", a.errors(), "bad_sender bad_sender bad_sender")
		check(t, "typing", c.media[0].payload, `{"device":"a.1","typing":true}`)
		check(t, "event", c.bodies(), `{"a":2,"b":1,"sender":"a.1"}`)
	})
}

func TestW16JoinTellsNoAddress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, c := b.connect("a.1", allCaps, 0), b.connectBox(&fakeBox{device: "c.1", session: "c", plain: true}, 0)
		a.must(ccp.TypeJoin, 9, `{"members":["c.1"],"relay":false}`)
		settle()
		cs := c.takeControls()
		if len(cs) != 1 || cs[0].t != ccp.TypePresence {
			t.Fatalf("%+v", cs)
		}
		check(t, "presence", cs[0].payload, `{"channel":9,"entity":"a.1","peer":"a.1","state":"online"}`)
	})
}

func TestW18MediaNeedsMembership(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, c, x := b.connect("a.1", allCaps, 0), b.connect("c.1", allCaps, 0), b.connect("x.1", allCaps, 0)
		a.must(ccp.TypeJoin, 9, `{"members":["c.1"]}`)
		settle()
		a.must(ccp.TypeCallOffer, 9, `{"call_id":"call-0001","from":"a.1","to":["c.1"]}`)
		settle()
		x.must(ccp.TypeVoiceFrame, 9, "\x01\x00\x00data")
		x.must(ccp.TypeCallEnd, 9, `{"call_id":"call-0001","reason":"hangup"}`)
		settle()
		check(t, "stranger", x.errors(), "no_channel no_channel")
		if b.hub.calls.Active() != 1 || len(c.media) != 0 {
			t.Error("a stranger reached the call")
		}
		a.takeControls()
		a.must(ccp.TypeVoiceFrame, 9, "\x02\x00\x00data")
		a.must(ccp.TypeVoiceFrame, 9, "\x01\x00\x00data")
		settle()
		check(t, "bad packet", a.errors(), "bad_media")
		if len(c.media) != 1 {
			t.Error("media not relayed")
		}
		// The caller goes away: after the resume window the call ends.
		a.link.Detach()
		after(time.Minute)
		if b.hub.calls.Active() != 1 {
			t.Error("the call ended inside the resume window")
		}
		c.take()
		after(2 * time.Minute)
		d := c.take()
		if len(d) != 1 || d[0].Kind != ccp.TypeCallEnd || !strings.Contains(string(d[0].Body), `"failure"`) {
			t.Errorf("%+v", d)
		}
	})
}

func TestW26PresenceIsRenewedAndFenced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a := b.connect("a.1", allCaps, 0)
		settle()
		state := func() string {
			b.store.mu.Lock()
			defer b.store.mu.Unlock()
			return b.store.beats["a.1"].State
		}
		check(t, "connected", state(), "online")
		a.must(ccp.TypePresence, 0, `{"state":"away"}`)
		settle()
		check(t, "own words", state(), "away")
		if len(a.takeControls()) != 0 {
			t.Error("Presence is not acknowledged")
		}
		b.store.set(func() { clear(b.store.beats) })
		after(11 * time.Second)
		check(t, "renewed", state(), "away")
		a.link.Detach()
		after(time.Minute)
		check(t, "no flap", state(), "away")
		after(2 * time.Minute)
		check(t, "gone", state(), "offline")
	})
}

func TestW33GroupChannelsCheckMembership(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, c, x := b.connect("a.1", allCaps, 0), b.connect("c.1", allCaps, 0), b.connect("x.1", allCaps, 0)
		a.must(ccp.TypeGroupCreate, 5, `{"group_id":"g","members":["c.1"],"roles":{"c.1":"owner"}}`)
		settle()
		check(t, "ack", a.takeControls()[0].payload, `{"ack":1,"group_id":"g"}`)
		c.take()
		x.must(ccp.TypeJoin, 5, `{"group_id":"g"}`)
		x.must(ccp.TypeMsg, 5, "spam")
		x.must(ccp.TypeGroupInvite, 5, `{"group_id":"g","device":"x.1"}`)
		settle()
		check(t, "outsider", x.errors(), "not_member no_channel no_group")
		c.must(ccp.TypeGroupInvite, 5, `{"group_id":"g","device":"x.1"}`) // owner in roles was lowered
		settle()
		check(t, "member", c.errors(), "not_allowed")
		a.must(ccp.TypeGroupInvite, 5, `{"group_id":"g","device":"x.1","role":"owner"}`)
		settle()
		check(t, "invite", a.takeControls()[0].payload, `{"ack":6,"device":"x.1","group_id":"g"}`)
		x.take()
		x.must(ccp.TypeMsg, 5, "in")
		settle()
		if got := a.take(); len(got) != 1 || string(got[len(got)-1].Body) != "in" {
			t.Errorf("%+v", got)
		}
		x.must(ccp.TypeLeave, 5, `{}`)
		settle()
		x.takeControls()
		x.must(ccp.TypeMsg, 5, "out")
		settle()
		check(t, "left", x.errors(), "no_channel")
		a.must(ccp.TypeMsg, 5, "secret")
		settle()
		check(t, "left", x.bodies(), "")
	})
}

func TestW34ChannelsAreNotGlobal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, c := b.connect("a.1", allCaps, 0), b.connect("c.1", allCaps, 0)
		x, y := b.connect("x.1", allCaps, 0), b.connect("y.1", allCaps, 0)
		a.must(ccp.TypeJoin, 9, `{"members":["c.1"]}`)
		x.must(ccp.TypeJoin, 9, `{"members":["y.1"]}`)
		settle()
		a.must(ccp.TypeMsg, 9, "ac")
		x.must(ccp.TypeMsg, 9, "xy")
		settle()
		check(t, "c", c.bodies(), "ac")
		check(t, "y", y.bodies(), "xy")
		// The table survives a restart.
		b.stop()
		b2 := newBedOn(t, b.store, b.acc, nil)
		defer b2.stop()
		a2 := b2.connect("a.1", allCaps, 0)
		a2.must(ccp.TypeMsg, 9, "again")
		settle()
		if b.store.depth("c.1") != 2 {
			t.Error("channel lost with the process")
		}
	})
}

func TestW43ExistingGroupIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, x := b.connect("a.1", allCaps, 0), b.connect("x.1", allCaps, 0)
		b.acc.add("c.1", allCaps)
		a.must(ccp.TypeGroupCreate, 5, `{"group_id":"g","members":["c.1"]}`)
		settle()
		x.must(ccp.TypeGroupCreate, 6, `{"group_id":"g","members":["a.1"],"roles":{"c.1":"member"}}`)
		settle()
		check(t, "taken", x.errors(), CodeGroupExists)
		a.takeControls()
		a.must(ccp.TypeGroupCreate, 5, `{"group_id":"g"}`)
		settle()
		check(t, "own, again", a.takeControls()[0].payload, `{"ack":3,"group_id":"g"}`)
		var g group
		if _, err := b.hub.get(t.Context(), groupKey("g"), &g); err != nil || len(g.Members) != 2 {
			t.Errorf("%+v %v", g, err)
		}
	})
}

func TestMillionMembersRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a := b.connect("a.1", allCaps, 0)
		list := make([]string, 1_000_000)
		for i := range list {
			list[i] = fmt.Sprint(i)
		}
		payload, err := json.Marshal(map[string]any{"members": list})
		if err != nil {
			t.Fatal(err)
		}
		a.must(ccp.TypeJoin, 9, string(payload))
		a.must(ccp.TypeGroupCreate, 9, string(payload))
		settle()
		check(t, "refused", a.errors(), "bad_request bad_request")
		b.store.mu.Lock()
		defer b.store.mu.Unlock()
		if len(b.store.recs) != 0 {
			t.Errorf("%d records written", len(b.store.recs))
		}
	})
}

func TestPlainPeersGetOnlySafeFrames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, c := b.connect("a.1", allCaps, 0), b.connectBox(&fakeBox{device: "c.1", session: "c", plain: true}, 0)
		a.must(ccp.TypeJoin, 9, `{"members":["c.1"],"relay":true}`)
		settle()
		a.must(ccp.TypeCallOffer, 9, `{"call_id":"call-0001","from":"a.1","to":[]}`)
		a.must(ccp.TypeTransportUpdate, 9, `{"call_id":"call-0001","update":"consent_keepalive"}`)
		a.must(ccp.TypeVoiceFrame, 9, "\x01\x00\x00opus")
		a.must(ccp.TypeCallEnd, 9, `{"call_id":"call-0001","reason":"hangup"}`)
		a.must(ccp.TypeCallOffer, 9, `{"call_id":"short","from":"a.1","to":[]}`)
		settle()
		check(t, "errors", a.errors(), "")
		var kinds []string
		for _, d := range c.take() {
			kinds = append(kinds, d.Kind.String())
			c.link.Alive(d.Position)
		}
		check(t, "kinds", strings.Join(kinds, " "), "call_offer call_end")
		check(t, "voice without its head", c.media[0].payload, "opus")
		after(time.Second)
		if n := b.store.depth("c.1"); n != 0 {
			t.Errorf("%d rows stay for ever", n)
		}
	})
}
