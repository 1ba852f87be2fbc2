package bind

import (
	"net/netip"
	"testing"
	"time"
)

func TestReplies(t *testing.T) {
	now := time.Unix(1000, 0)
	r := new(replies)
	took := func(to netip.AddrPort, tries int) (n int) {
		for range tries {
			if r.take(to, now) {
				n++
			}
		}
		return n
	}
	one, two := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.1:2")
	if n := took(one, 1000); n != replyBurst {
		t.Errorf("%d replies at once", n)
	}
	if n := took(two, 1); n != 1 {
		t.Error("another port has to suffer")
	}
	now = now.Add(time.Second)
	if n := took(one, 1000); n != replyBurst {
		t.Errorf("%d replies a second later", n)
	}
	now = now.Add(time.Second)
	n := 0
	for port := range 60000 {
		n += took(netip.AddrPortFrom(one.Addr(), uint16(port)), 1)
	}
	if n > replyTotal/10 {
		t.Errorf("%d replies to everybody at once", n)
	}
}
