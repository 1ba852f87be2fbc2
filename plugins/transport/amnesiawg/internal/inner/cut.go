package inner

import (
	"encoding/binary"
	"math/rand/v2"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Places in an IPv6 packet with a TCP segment (RFC 8200, section 3; RFC 9293,
// section 3.1).
const (
	ipSize      = header.IPv6MinimumSize
	atLength    = 4 // of the payload, after the IP header
	atNext      = 6 // protocol
	atAddresses = 8 // both, up to the end of the IP header
	atSequence  = ipSize + 4
	atAck       = ipSize + 8
	atOffset    = ipSize + 12
	atFlags     = ipSize + 13
	atChecksum  = ipSize + 16
	maxHeaders  = ipSize + 60

	flagFin = 1
	flagPsh = 8
	flagCwr = 128
)

// A cutter gives a packet of the stack's piece by piece, each with headers of its
// own.
type cutter struct {
	// limit bounds a segment's payload below what TCP has found; 0 is no bound.
	limit int
	// padLow and padHigh are how many zero bytes follow a packet, at random. They
	// are added to packets that are shorter than half of mtu, so that bulk stays
	// of one size.
	padLow, padHigh, mtu int

	pkt     *stack.PacketBuffer
	view    *buffer.View
	at      int // in view
	left    int // bytes that are not given yet
	headers int // bytes of IP and TCP header, 0 where the packet stays as it is
	first   bool
	head    [maxHeaders]byte
	size    int // of a segment's payload
	seq     uint32
}

// done says that there is no packet, or nothing left of it.
func (c *cutter) done() bool { return c.pkt == nil }

// start takes a packet over.
func (c *cutter) start(p *stack.PacketBuffer) {
	c.pkt, c.left, c.headers, c.first = p, p.Size(), 0, true
	views, offset := p.AsViewList()
	c.view, c.at = views.Front(), offset
	c.skip()
	gso := p.GSOOptions
	if gso.Type != stack.GSOTCPv6 || c.left < ipSize+header.TCPMinimumSize {
		return
	}
	c.copy(c.head[:ipSize+header.TCPMinimumSize])
	n := ipSize + int(c.head[atOffset]>>4)*4
	c.copy(c.head[ipSize+header.TCPMinimumSize : n])
	c.headers = n
	c.size = int(gso.MSS)
	if c.limit > 0 && (c.size == 0 || c.size > c.limit) {
		c.size = c.limit
	}
	if c.size == 0 {
		c.size = c.left
	}
	c.seq = binary.BigEndian.Uint32(c.head[atSequence:])
}

// skip goes to the view that the next byte lies in.
func (c *cutter) skip() {
	for c.view != nil && c.at >= c.view.Size() {
		c.at -= c.view.Size()
		c.view = c.view.Next()
	}
}

// copy takes bytes of the packet.
func (c *cutter) copy(dst []byte) {
	for len(dst) > 0 && c.view != nil {
		n := copy(dst, c.view.AsSlice()[c.at:])
		dst, c.at, c.left = dst[n:], c.at+n, c.left-n
		c.skip()
	}
}

// next writes the next packet to dst and gives its size.
func (c *cutter) next(dst []byte) int {
	var n int
	if c.headers == 0 {
		n = c.left
		c.copy(dst[:n])
	} else {
		n = c.segment(dst)
	}
	if c.left == 0 {
		c.pkt.DecRef()
		c.pkt, c.view = nil, nil
	}
	return c.pad(dst, n)
}

func (c *cutter) segment(dst []byte) int {
	payload := min(c.size, c.left)
	n := c.headers + payload
	dst = dst[:n]
	copy(dst, c.head[:c.headers])
	c.copy(dst[c.headers:])
	binary.BigEndian.PutUint16(dst[atLength:], uint16(n-ipSize))
	binary.BigEndian.PutUint32(dst[atSequence:], c.seq)
	c.seq += uint32(payload)
	if c.left > 0 {
		dst[atFlags] &^= flagFin | flagPsh
	}
	if !c.first {
		dst[atFlags] &^= flagCwr
	}
	c.first = false
	// Pseudo-header (RFC 8200, section 8.1): addresses, length, protocol.
	sum := checksum.Checksum(dst[atAddresses:ipSize], uint16(n-ipSize))
	sum = checksum.Combine(sum, uint16(header.TCPProtocolNumber))
	dst[atChecksum], dst[atChecksum+1] = 0, 0
	sum = checksum.Checksum(dst[ipSize:], sum)
	binary.BigEndian.PutUint16(dst[atChecksum:], ^sum)
	return n
}

// pad adds zero bytes that the receiver cuts off by the IP header's length.
func (c *cutter) pad(dst []byte, n int) int {
	if c.padHigh == 0 || n >= c.mtu/2 {
		return n
	}
	more := min(c.padLow+rand.IntN(c.padHigh-c.padLow+1), c.mtu-n)
	clear(dst[n : n+more])
	return n + more
}
