package session

import (
	"crypto/rand"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/admission"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

func TestClose(t *testing.T) {
	h := newHouse(t, nil)
	c := h.join(t, newDevice(t, "dev-a", "alice"))
	// The client has its Ack a moment before the server counts the session.
	for n, opening := 0, 1; n == 0 || opening != 0; n, opening = h.Sessions() {
		runtime.Gosched()
	}
	half, ended := h.serve(transport.Facts{}) // a handshake that never began
	done := make(chan struct{})
	go func() { h.Close(); close(done) }()
	if _, err := c.read(); codeOf(err) != ccp.CodeUnavailable {
		t.Errorf("got %v", err)
	}
	c.conn.Close()
	<-done
	<-ended
	half.Close()
	h.Close() // again: nothing
	if n, o := h.Sessions(); n != 0 || o != 0 {
		t.Errorf("%d sessions, %d openings left", n, o)
	}
}

// stuckConn closes only when others are being closed as well, as one does whose peer
// does not read.
type stuckConn struct {
	factsConn
	others *sync.WaitGroup
	once   sync.Once
}

func (c *stuckConn) Close() error {
	c.once.Do(func() {
		c.others.Done()
		c.others.Wait()
	})
	return c.factsConn.Close()
}

// TestCloseDoesNotQueue: handshakes whose connections are slow to close hold up
// neither each other nor those who ask for the number of sessions.
func TestCloseDoesNotQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		var others sync.WaitGroup
		others.Add(3)
		for range 2 {
			a, b := pipe()
			defer a.Close()
			h.serveConn(&stuckConn{factsConn: factsConn{b, transport.Facts{Transport: "pipe"}}, others: &others})
		}
		synctest.Wait()
		done := make(chan struct{})
		go func() { h.Close(); close(done) }()
		synctest.Wait()
		if n, o := h.Sessions(); n != 0 || o != 2 {
			t.Errorf("%d sessions, %d openings", n, o)
		}
		others.Done()
		<-done
	})
}

// slowRandom takes its time for each draw.
type slowRandom struct{}

func (slowRandom) Read(b []byte) (int, error) {
	time.Sleep(100 * time.Millisecond)
	return rand.Read(b)
}

// TestKeyWorkIsChargedOnce: a source pays for the time that its handshake takes, and
// not for more.
func TestKeyWorkIsChargedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := admission.New(admission.Options{Narrow: admission.Budget{Work: 1, WorkBurst: 150 * time.Millisecond}})
		h := newHouse(t, func(o *Options, _ *account.Options) { o.Gate, o.Rand = gate, slowRandom{} })
		src := admission.Source{Transport: "pipe", Addr: netip.MustParseAddr("203.0.113.7")}
		ticket, err := gate.Admit(src)
		if err != nil {
			t.Fatal(err)
		}
		conn, _ := h.serve(transport.Facts{Transport: "pipe", Context: admission.NewContext(t.Context(), ticket)})
		c := h.client(t, newDevice(t, "dev-a", "alice"), conn)
		c.caps &^= ccp.PQ // one draw in the public-key work: the ephemeral of message 2
		c.invite = h.invite(t)
		if err := c.connect(); err != nil {
			t.Fatal(err)
		}
		if _, err := gate.Admit(src); err != nil {
			t.Errorf("after 100 of 150 ms: %v", err)
		}
	})
}

// TestCompatSessionsAreBounded: a peer of the reference is turned away as others are, and
// who is in is found by device and by Close.
func TestCompatSessionsAreBounded(t *testing.T) {
	h := newHouse(t, func(o *Options, a *account.Options) {
		o.ClearFrames, a.Registration = true, account.Open
		o.Limits.Sessions = 1
	})
	a := h.old(t, newDevice(t, "device-1", "alice"), "")
	if err := a.connect(); err != nil {
		t.Fatal(err)
	}
	if err := h.old(t, newDevice(t, "device-2", "bob"), "").connect(); err == nil {
		t.Error("there is one session more than limits.sessions")
	}
	if h.dir.Count("device") != 1 {
		t.Error("the device that was turned away was stored")
	}
	if n := h.CloseDevice("device-1", ccp.CodeRevoked); n != 1 {
		t.Errorf("%d sessions of the device that is in", n)
	}
}

// TestCloseCutsConnections: also a session that nothing leads to any more does not keep
// Close waiting.
func TestCloseCutsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		c := h.join(t, newDevice(t, "dev-a", "alice"))
		synctest.Wait()
		h.unregister(h.relay.link("dev-a").box.(*Session))
		began := time.Now() // the bubble's clock
		h.Close()
		if d := time.Since(began); d > 2*h.opt.Limits.Farewell {
			t.Errorf("Close took %s", d)
		}
		if _, err := c.read(); err == nil {
			t.Error("the connection is still open")
		}
	})
}
