package masque

import (
	"bytes"
	"net/netip"
	"testing"
)

// TestPacketQueue: what comes comes out in order, and what quic-go could not read or
// what is too much is lost.
func TestPacketQueue(t *testing.T) {
	p := newPackets(tunnelAddr(1), func([]byte, int, netip.AddrPort) error { return nil })
	defer p.Close()
	from := tunnelAddr(2)
	p.push(make([]byte, packetMost+1), from)
	for i := range packetQueue + 10 {
		p.push(bytes.Repeat([]byte{byte(i)}, packetMost), from)
	}
	buf := make([]byte, 2000)
	for i := range packetQueue {
		n, addr, err := p.ReadFrom(buf)
		if err != nil || n != packetMost || buf[0] != byte(i) || addr != from {
			t.Fatalf("packet %d: %d bytes of %d from %v, %v", i, n, buf[0], addr, err)
		}
	}
	if p.n != 0 {
		t.Errorf("%d packets are left", p.n)
	}
}
