package session

import (
	"crypto/rand"
	"encoding/base64"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
)

// again dials with the token of a former connection.
func (h *house) again(t *testing.T, former *client, ik bool) *client {
	t.Helper()
	c := h.dial(t, former.dev)
	c.ik, c.resume, c.cursor = ik, former.ack.Ext.Resume.Token, 9001
	return c
}

func TestResume(t *testing.T) {
	for _, ik := range []bool{true, false} {
		h := newHouse(t, nil)
		h.relay.logs = []relay.LogState{{Log: [8]byte{1}, Done: [][2]uint64{{1, 40}, {42, 42}}}}
		d := newDevice(t, "dev-a", "alice")
		first := h.join(t, d)
		id := h.relay.link("dev-a").box.Session()
		first.conn.Close()
		before := h.dir.Dump()
		c := h.again(t, first, ik)
		if err := c.connect(); err != nil {
			t.Fatalf("ik %t: %v", ik, err)
		}
		r := c.ack.Ext.Resume
		if !r.Resumed || r.Token == nil || *r.Token == *first.ack.Ext.Resume.Token || r.Window != 120 || r.Fence == 0 || r.Cursor != 9001 || len(r.Logs) != 1 {
			t.Errorf("resume %+v", r)
		}
		if c.ack.Session != first.ack.Session {
			t.Error("the bearer token was not taken up")
		}
		if got := h.relay.link("dev-a").box.Session(); got != id {
			t.Error("the public id was not taken up")
		}
		if h.dir.Dump() != before {
			t.Error("resuming wrote to the directory")
		}
		exchange(t, h, c)
	}
}

// TestResumeTokenIsOneUse: the old token lives until the first record after the
// Ack, so that a lost Ack costs nothing, and then no more.
func TestResumeTokenIsOneUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		first := h.join(t, newDevice(t, "dev-a", "alice"))
		first.conn.Close()
		synctest.Wait()
		for range 3 { // the Ack is lost each time
			c := h.again(t, first, true)
			if err := c.first(); err != nil {
				t.Fatal(err)
			}
			if err := c.third(); err != nil {
				t.Fatal(err)
			}
			if err := c.confirm(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			c.conn.Close()
			synctest.Wait()
		}
		c := h.again(t, first, true)
		if err := c.connect(); err != nil || !c.ack.Ext.Resume.Resumed {
			t.Fatalf("after lost acks: %v", err)
		}
		if err := c.raw(nil); err != nil { // any record
			t.Fatal(err)
		}
		synctest.Wait()
		if code := codeOf(h.again(t, first, true).connect()); code != ccp.CodeUseXK {
			t.Errorf("spent token over IK: %s", code)
		}
		spent := h.again(t, first, false)
		if err := spent.connect(); err != nil || spent.ack.Ext.Resume.Resumed {
			t.Errorf("spent token over XK: %v", err)
		}
	})
}

// TestResumeTokenOutlivesWhatCameBeforeTheAck: a record that was sent together with
// the Confirm does not show that the Ack, with the new token, has arrived.
func TestResumeTokenOutlivesWhatCameBeforeTheAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		first := h.join(t, newDevice(t, "dev-a", "alice"))
		first.conn.Close()
		synctest.Wait()
		c := h.again(t, first, true)
		if err := c.first(); err != nil {
			t.Fatal(err)
		}
		if err := c.third(); err != nil {
			t.Fatal(err)
		}
		hold := &holdConn{Conn: c.conn}
		c.conn = hold
		if err := c.confirm(); err != nil {
			t.Fatal(err)
		}
		if err := c.frame(ccp.TypeMsg, 9, []byte("pipelined")); err != nil {
			t.Fatal(err)
		}
		if _, err := hold.Conn.Write(hold.held.Bytes()); err != nil {
			t.Fatal(err)
		}
		if _, err := hold.Conn.Read(make([]byte, 64<<10)); err != nil { // the Ack, which gets lost
			t.Fatal(err)
		}
		synctest.Wait()
		hold.Conn.Close()
		synctest.Wait()
		again := h.again(t, first, true)
		if err := again.connect(); err != nil || !again.ack.Ext.Resume.Resumed {
			t.Errorf("after a lost Ack: %v", err)
		}
	})
}

func TestResumeWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		d := newDevice(t, "dev-a", "alice")
		first := h.join(t, d)
		h.pass(3 * time.Hour) // the window runs from the end of the connection
		first.conn.Close()
		synctest.Wait()
		h.pass(119 * time.Second)
		second := h.again(t, first, true)
		if err := second.connect(); err != nil || !second.ack.Ext.Resume.Resumed {
			t.Fatalf("within the window: %v", err)
		}
		second.conn.Close()
		synctest.Wait()
		h.pass(121 * time.Second)
		if code := codeOf(h.again(t, second, true).connect()); code != ccp.CodeUseXK {
			t.Errorf("after the window: %s", code)
		}
		third := h.dial(t, d)
		if err := third.connect(); err != nil {
			t.Fatal(err)
		}
		h.pass(25 * time.Hour) // 24 h bound its whole life
		if code := codeOf(h.again(t, third, true).connect()); code != ccp.CodeUseXK {
			t.Errorf("after 24 h: %s", code)
		}
	})
}

func TestResumeRefusals(t *testing.T) {
	h := newHouse(t, nil)
	alice := h.join(t, newDevice(t, "dev-a", "alice"))
	bob := newDevice(t, "dev-b", "bob")
	h.join(t, bob)
	c := h.dial(t, bob)
	c.resume = alice.ack.Ext.Resume.Token
	if err := c.connect(); err != nil || c.ack.Ext.Resume.Resumed || c.ack.Session == alice.ack.Session {
		t.Errorf("token of another device: %v, %+v", err, c.ack.Ext.Resume)
	}
	if r := h.again(t, alice, true); r.connect() != nil || !r.ack.Ext.Resume.Resumed {
		t.Error("the owner lost the token to the other's attempt")
	}
	for name, token := range map[string]*[32]byte{"no token": nil, "unknown token": {1}} {
		c := h.dial(t, bob)
		c.ik, c.resume = true, token
		if code := codeOf(c.connect()); code != ccp.CodeUseXK {
			t.Errorf("IK with %s: %s", name, code)
		}
	}
}

// TestResumeAfterLosses: without the volatile store's record, or after the token's
// end, there is a fresh session and no error.
func TestResumeAfterLosses(t *testing.T) {
	h := newHouse(t, nil)
	first := h.join(t, newDevice(t, "dev-a", "alice"))
	h.cache.mu.Lock()
	h.cache.m = nil
	h.cache.mu.Unlock()
	c := h.again(t, first, false)
	if err := c.connect(); err != nil || c.ack.Ext.Resume.Resumed || c.ack.Ext.Resume.Token == nil {
		t.Errorf("after losing the cache: %v, %+v", err, c.ack.Ext.Resume)
	}
	h.pass(2 * time.Hour) // the bearer token ends, the resume token does not
	d := h.again(t, c, true)
	if err := d.connect(); err != nil || !d.ack.Ext.Resume.Resumed || d.ack.Session == c.ack.Session {
		t.Errorf("with an ended bearer token: %v", err)
	}
	if _, err := h.accounts.Token(t.Context(), d.ack.Session); err != nil {
		t.Errorf("the new token: %v", err)
	}
}

// TestResumeDropsWithRevocation: a revoked device's token is worth nothing.
func TestResumeDropsWithRevocation(t *testing.T) {
	h := newHouse(t, nil)
	first := h.join(t, newDevice(t, "dev-a", "alice"))
	if err := h.accounts.RevokeDevice(t.Context(), "", "dev-a"); err != nil {
		t.Fatal(err)
	}
	if _, err := first.read(); codeOf(err) != ccp.CodeRevoked {
		t.Errorf("the live session: %v", err)
	}
	first.conn.Close()
	if code := codeOf(h.again(t, first, true).connect()); code != ccp.CodeRevoked && code != ccp.CodeUseXK {
		t.Errorf("resuming: %s", code)
	}
}

// TestCacheHoldsNoSecret: the volatile store sees neither token.
func TestCacheHoldsNoSecret(t *testing.T) {
	token := [32]byte{1, 2, 3}
	bearer := "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	secret, tk, err := makeTicket(rand.Reader, bearer, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, nil)
	_, value, err := (&Session{srv: h.Server, device: "d"}).stored(&tk)
	if err != nil {
		t.Fatal(err)
	}
	if containsAny(string(value), bearer, "ABEiM0RVZneImaq7zN3u/w", base64.StdEncoding.EncodeToString(secret[:])) {
		t.Errorf("stored %s", value)
	}
	if got := mask(token, mask(token, make([]byte, 32))); string(got) != string(make([]byte, 32)) {
		t.Error("mask is no involution")
	}
}
