package relay

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

func check(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestDirectMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, c := b.connect("a.1", allCaps, 0), b.connect("c.1", allCaps, 0)
		a2 := b.connect("a.2", allCaps, 0)
		old := b.connect("a.3", 0, 0)
		settle()
		a.send("c.1", "one")
		a.send("u-c", "two")
		settle()
		check(t, "ack", merged(a.acked()), "1-2")
		got := c.take()
		if len(got) != 2 || string(got[0].Body) != "one" || got[0].Flags != FlagDirect || got[0].Device != "a.1" || got[0].User != "u-a" || got[0].Position == 0 || got[0].Channel != 0 {
			t.Fatalf("got %+v", got)
		}
		own := a2.take()
		if len(own) != 2 || own[0].Flags != FlagDirect|FlagOwnCopy {
			t.Fatalf("own copy %+v", own)
		}
		check(t, "device without ack", old.bodies(), "")
		if b.store.depth("c.1") != 2 {
			t.Error("rows must stay until Done")
		}
		c.done(got[1].Position)
		after(time.Second)
		if n := b.store.depth("c.1"); n != 0 {
			t.Errorf("%d rows after Done", n)
		}
	})
}

func TestOldPeerGetsDirectMessageOnItsChannel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, c := b.connect("dev-a", allCaps, 0), b.connect("dev-b", 0, 0)
		a.send("dev-b", "hi")
		settle()
		got := c.take()
		if len(got) != 1 || got[0].Channel != 194006100 {
			t.Fatalf("got %+v", got)
		}
		after(time.Second)
		if b.store.depth("dev-b") != 1 {
			t.Fatal("the row must wait for Alive")
		}
		c.link.Alive(got[0].Position)
		after(time.Second)
		if b.store.depth("dev-b") != 0 {
			t.Fatal("the row must go")
		}
	})
}

func TestOfflineDeliveryAndResume(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a := b.connect("a.1", allCaps, 0)
		b.acc.add("c.1", allCaps)
		var want []string
		for i := range 600 {
			body := fmt.Sprint("m", i)
			want = append(want, body)
			a.send("c.1", body)
		}
		settle()
		c := b.connect("c.1", allCaps, 0)
		settle()
		var got []string
		for len(got) < 600 {
			d := c.take()
			if len(d) == 0 {
				t.Fatalf("delivery stopped after %d", len(got))
			}
			if len(d) > 256 {
				t.Fatalf("%d in flight", len(d))
			}
			for _, x := range d {
				got = append(got, string(x.Body))
			}
			c.done(d[len(d)-1].Position)
			settle()
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Error("order")
		}
		after(time.Second)
		// Undone messages come again behind the stored cursor, marked.
		a.send("c.1", "x")
		a.send("c.1", "y")
		settle()
		d := c.take()
		c.link.Detach()
		c = b.connect("c.1", allCaps, d[0].Position)
		settle()
		d = c.take()
		if len(d) != 1 || string(d[0].Body) != "y" || d[0].Flags&FlagSentBefore == 0 {
			t.Fatalf("resumed with %+v", d)
		}
		logs := a.link.Logs()
		if len(logs) != 1 || fmt.Sprint(logs[0].Done) != "[[1 602]]" {
			t.Fatalf("logs %v", logs)
		}
	})
}

func TestLargeMessageAndPeersWithoutRecords(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, c, d := b.connect("a.1", allCaps, 0), b.connect("c.1", allCaps&^ccp.Records, 0), b.connect("d.1", allCaps, 0)
		a.n++
		if err := a.sendAs(1, 0, []string{"c.1", "d.1"}, strings.Repeat("x", 100_000), 0); err != nil {
			t.Fatal(err)
		}
		settle()
		check(t, "ack", a.acked(), "1-1 1:c.1:too_large")
		if len(c.take()) != 0 || len(d.take()) != 1 {
			t.Error("delivered to the wrong peers")
		}
		if b.store.depth("c.1") != 0 {
			t.Error("never queued for a peer without records")
		}
		// One message larger than the window is delivered alone.
		a.n++
		if err := a.sendAs(2, 0, []string{"d.1"}, strings.Repeat("y", 1<<20), 0); err != nil {
			t.Fatal(err)
		}
		settle()
		if n := len(d.take()); n != 0 {
			t.Fatalf("%d pushed while the window was not empty", n)
		}
		d.done(1 << 40)
		settle()
		if n := len(d.take()); n != 1 {
			t.Fatalf("%d pushed", n)
		}
	})
}

func TestQuotaFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		b.store.quota = 1
		a := b.connect("a.1", allCaps, 0)
		b.acc.add("c.1", allCaps)
		b.acc.add("d.1", allCaps)
		a.send("c.1", "1")
		a.send("c.1", "2")
		settle()
		cs := a.takeControls()
		if len(cs) != 2 || cs[0].t != ccp.TypeError && cs[1].t != ccp.TypeError {
			t.Fatalf("%+v", cs)
		}
		a.n++
		a.sendAs(a.n, 0, []string{"c.1", "d.1"}, "3", 0)
		settle()
		check(t, "ack", a.acked(), "3-3 3:c.1:full")
	})
}

func TestEphemeralIsNeverStored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, c := b.connect("a.1", allCaps, 0), b.connect("c.1", allCaps, 0)
		b.acc.add("d.1", allCaps)
		for i, kind := range []ccp.Type{ccp.TypeTyping, ccp.TypeVoiceFrame, ccp.TypeVideoFrame} {
			flags := uint8(0)
			body := "voice"
			if kind == ccp.TypeTyping {
				flags, body = ccp.SendEphemeral, `{"typing":true}`
			}
			err := a.sendFrame(0, ccp.Send{
				Kind: kind, ID: ccp.MessageID{Log: a.log, Counter: uint64(i + 1)}, Flags: flags,
				To: [][]byte{[]byte("c.1"), []byte("d.1")}, Body: []byte(body),
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		settle()
		check(t, "ack", strings.Join(strings.Fields(a.acked()), " "), "1-1 2-2 3-3")
		if len(c.media) != 3 || b.store.depth("c.1")+b.store.depth("d.1") != 0 {
			t.Fatalf("media %d", len(c.media))
		}
		d, err := ccp.ParseDeliver([]byte(c.media[0].payload))
		if err != nil || d.Position != 0 || string(d.Body) != `{"device":"a.1","typing":true}` {
			t.Fatalf("%+v %v %s", d, err, d.Body)
		}
	})
}

func TestExpiryAndPurge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a := b.connect("a.1", allCaps, 0)
		b.acc.add("c.1", allCaps)
		a.sendFrame(0, ccp.Send{Kind: ccp.TypeMsg, ID: ccp.MessageID{Log: a.log, Counter: 1}, TTL: 10, To: [][]byte{[]byte("c.1")}, Body: []byte("short")})
		a.n = 1
		a.send("c.1", "long")
		settle()
		after(11 * time.Second)
		c := b.connect("c.1", allCaps, 0)
		settle()
		check(t, "delivered", c.bodies(), "long")
		after(2 * time.Minute)
		if b.store.depth("c.1") != 1 {
			t.Error("expired row not purged")
		}
	})
}

func TestNotify(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		b.acc.add("c.1", allCaps)
		if err := b.hub.Notify(t.Context(), "c.1", ccp.TypeGroupEvent, 0, []byte(`{"type":"device-added"}`)); err != nil {
			t.Fatal(err)
		}
		c := b.connect("c.1", allCaps, 0)
		settle()
		d := c.take()
		if len(d) != 1 || d[0].Kind != ccp.TypeGroupEvent || d[0].Device != "" {
			t.Fatalf("%+v", d)
		}
		if err := b.hub.Notify(t.Context(), "nobody", ccp.TypeGroupEvent, 0, nil); err == nil {
			t.Error("unknown device accepted")
		}
	})
}
