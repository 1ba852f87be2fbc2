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
