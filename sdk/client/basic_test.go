package client

import (
	"strings"
	"testing"

	"github.com/commucat/commucat/sdk/ccp"
)

func TestRoundTrip(t *testing.T) {
	for _, tc := range []struct {
		name     string
		promised ccp.Capabilities
		caps     ccp.Capabilities
	}{
		{"nothing promised", 0, ccp.AllCapabilities},
		{"sealed", ccp.ProofBinding | ccp.Sealed | ccp.Records | ccp.Ack, ccp.AllCapabilities &^ ccp.PQ},
		{"post-quantum", ccp.AllCapabilities, ccp.AllCapabilities},
		{"without resume", 0, needed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRelay(t)
			r.caps, r.frame = tc.caps, ackAll
			u := start(t, r.options(tc.promised))
			u.connected()
			p := <-r.arrived
			if err := p.deliver(1, 1, "hello"); err != nil {
				t.Fatal(err)
			}
			res, err := u.wait(u.say("hi"))
			if err != nil || res.ID.Counter != 1 || res.ID.Log != [8]byte{0xa1} {
				t.Fatalf("got %v, %v", res, err)
			}
			if m := u.heard(1)[0]; string(m.Body) != "hello" || m.Device != "dev-a" || m.User != "u-1" || !m.Direct || m.Kind != ccp.TypeMsg {
				t.Fatalf("shown: %+v", m)
			}
			big := strings.Repeat("x", 3<<20)
			if err := p.deliver(2, 2, big); err != nil {
				t.Fatal(err)
			}
			if string(u.heard(2)[1].Body) != big {
				t.Fatal("a large message was changed")
			}
			if _, err := u.wait(u.say(big)); err != nil {
				t.Fatal(err)
			}
			u.close()
			u.close()
			if _, err := u.Send(Draft{To: []string{"x"}}); err != ErrClosed {
				t.Fatalf("Send after Close: %v", err)
			}
		})
	}
}

func TestDraftRefused(t *testing.T) {
	r := newRelay(t)
	u := start(t, r.options(0))
	for name, d := range map[string]Draft{
		"nobody":         {Body: []byte("x")},
		"both":           {To: []string{"a"}, Channel: 4},
		"empty id":       {To: []string{""}},
		"long id":        {To: []string{strings.Repeat("x", 256)}},
		"too many":       {To: make([]string, 65)},
		"kind":           {To: []string{"a"}, Kind: ccp.TypeHello},
		"control body":   {To: []string{"a"}, Kind: ccp.TypeTyping, Body: []byte("{")},
		"ttl below 1 s":  {To: []string{"a"}, TTL: 1},
		"negative ttl":   {To: []string{"a"}, TTL: -1},
		"too large body": {To: []string{"a"}, Body: make([]byte, MaxBody+1)},
	} {
		if _, err := u.Send(d); !isKind(err, Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if u.Pending() != 0 {
		t.Error("a refused draft stays in the outbox")
	}
}
