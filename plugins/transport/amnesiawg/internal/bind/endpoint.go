package bind

import (
	"fmt"
	"net/netip"

	"golang.zx2c4.com/wireguard/conn"
)

// An Endpoint is where datagrams of a peer come from: its address, and the socket
// and local address that they came to. It does not change.
type Endpoint struct {
	addr   netip.AddrPort
	local  netip.Addr // what an answer must come from; not valid where unknown
	socket int
}

var _ conn.Endpoint = (*Endpoint)(nil)

// Addr is the peer's address.
func (e *Endpoint) Addr() netip.AddrPort { return e.addr }

// Text is the endpoint as ParseEndpoint reads it.
func (e *Endpoint) Text() string { return fmt.Sprintf("%d/%s", e.socket, e.addr) }

// Socket is the number of the socket.
func (e *Endpoint) Socket() int { return e.socket }

// ClearSrc does nothing: an answer from another address than the one that the
// peer talks to would not get through its NAT.
func (e *Endpoint) ClearSrc() {}

// SrcToString is the local address.
func (e *Endpoint) SrcToString() string { return e.local.String() }

// DstToString is Text: WireGuard's own reports then say which socket it is.
func (e *Endpoint) DstToString() string { return e.Text() }

// DstToBytes is the peer's address and port in binary.
func (e *Endpoint) DstToBytes() []byte {
	b, _ := e.addr.MarshalBinary() // never fails
	return b
}

// DstIP is the peer's address.
func (e *Endpoint) DstIP() netip.Addr { return e.addr.Addr() }

// SrcIP is the local address.
func (e *Endpoint) SrcIP() netip.Addr { return e.local }

// endpoints keeps the last endpoints of a socket, so that a packet costs no
// allocation. It belongs to one goroutine.
type endpoints struct {
	socket int
	slots  [256]*Endpoint
}

func (c *endpoints) get(addr netip.AddrPort, local netip.Addr) *Endpoint {
	h := uint32(addr.Port()) * 2654435761
	b := addr.Addr().As16()
	for _, v := range b[8:] {
		h = (h ^ uint32(v)) * 16777619
	}
	slot := &c.slots[h>>24]
	if e := *slot; e != nil && e.addr == addr && e.local == local {
		return e
	}
	*slot = &Endpoint{addr: addr, local: local, socket: c.socket}
	return *slot
}
