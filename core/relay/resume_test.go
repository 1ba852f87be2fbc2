package relay

import (
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// TestResumeWindowBeginsWithTheLastEnd: a device that loses its connection again keeps
// its call for the whole window each time, and loses it when that is over.
func TestResumeWindowBeginsWithTheLastEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, c := b.connect("a.1", allCaps, 0), b.connect("b.1", allCaps, 0)
		a.must(ccp.TypeJoin, 7, `{"members":["b.1"],"relay":true}`)
		settle()
		a.must(ccp.TypeCallOffer, 7, `{"call_id":"call-0001","from":"a.1","to":["b.1"],"media":{"mode":"half_duplex",`+
			`"audio":{"codec":"opus","bitrate":16000,"sample_rate":48000,"channels":1}},"transport":{"prefer_relay":true}}`)
		settle()
		c.must(ccp.TypeCallAnswer, 7, `{"call_id":"call-0001","accept":true}`)
		settle()
		for range 4 {
			a.link.Detach()
			after(50 * time.Second)
			a = b.connect("a.1", allCaps, 0)
			after(30 * time.Second)
		}
		a.link.Detach()
		after(119 * time.Second)
		if n := b.hub.calls.Active(); n != 1 {
			t.Fatalf("%d calls before the end of the window", n)
		}
		after(2 * time.Second)
		if n := b.hub.calls.Active(); n != 0 {
			t.Errorf("%d calls after the window", n)
		}
	})
}

// TestPresenceIsResumed: a session that is taken up again keeps what the device said of
// itself; a new session begins online, and so does one after the window.
func TestPresenceIsResumed(t *testing.T) {
	tests := map[string]struct {
		resumed bool
		away    time.Duration
		want    string
	}{
		"resumed":        {true, 100 * time.Second, "away"},
		"new session":    {false, 100 * time.Second, ccp.StateOnline},
		"window is over": {true, 121 * time.Second, ccp.StateOnline},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newBed(t, nil)
				defer b.stop()
				a := b.connect("a.1", allCaps, 0)
				a.must(ccp.TypePresence, 0, `{"state":"away"}`)
				after(time.Second)
				a.link.Detach()
				after(c.away)
				session := a.session
				if !c.resumed {
					session = "another"
				}
				b.connectBox(&fakeBox{device: "a.1", session: session, caps: allCaps}, 0)
				after(time.Second)
				check(t, "presence", b.presence("a.1"), c.want)
				after(30 * time.Second)
				check(t, "presence after a renewal", b.presence("a.1"), c.want)
			})
		})
	}
}

func (b *bed) presence(device string) (state string) {
	b.store.set(func() { state = b.store.beats[device].State })
	return state
}
