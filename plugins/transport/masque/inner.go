package masque

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/commucat/commucat/sdk/transport"
)

// innerEndpoint is the QUIC endpoint whose packets come through tunnels. It serves
// the same site, so that a guest reaches the relay's stream there as it does
// outside: by a proof bound to that inner connection.
type innerEndpoint struct {
	packets *packets
	chained net.Addr // the second UDP address, nil without one

	mu      sync.RWMutex
	next    uint64
	tunnels map[netip.Addr]*tunnel
}

// innerLocal is the address of the site inside tunnels; those of tunnels begin with
// the same byte. They are unique local (RFC 4193) and never leave the process.
const innerLocal = 0xfd

func newInner() *innerEndpoint {
	e := &innerEndpoint{tunnels: make(map[netip.Addr]*tunnel)}
	local := make(net.IP, net.IPv6len)
	local[0], local[15] = innerLocal, 1
	e.packets = newPackets(&net.UDPAddr{IP: local, Port: 1}, e.send)
	return e
}

// add gives a tunnel an address: a /64 of its own.
func (e *innerEndpoint) add(t *tunnel) *net.UDPAddr {
	ip := make(net.IP, net.IPv6len)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.next++
	binary.BigEndian.PutUint64(ip, e.next)
	ip[0], ip[15] = innerLocal, 1
	addr := &net.UDPAddr{IP: ip, Port: 1}
	e.tunnels[addr.AddrPort().Addr()] = t
	return addr
}

// remove ends the connections of a tunnel that is gone; their peers cannot tell.
func (e *innerEndpoint) remove(addr *net.UDPAddr) {
	e.mu.Lock()
	t := e.tunnels[addr.AddrPort().Addr()]
	delete(e.tunnels, addr.AddrPort().Addr())
	conns := t.conns
	t.conns = nil
	e.mu.Unlock()
	for _, c := range conns {
		_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}
}

// began notes a connection of a tunnel; it is http3.Server.ConnContext.
func (e *innerEndpoint) began(ctx context.Context, c *quic.Conn) context.Context {
	e.mu.Lock()
	t := e.tunnels[transport.AddrPort(c.RemoteAddr()).Addr()]
	if t != nil {
		t.conns = append(slices.DeleteFunc(t.conns, func(c *quic.Conn) bool { return c.Context().Err() != nil }), c)
	}
	e.mu.Unlock()
	if t == nil { // the tunnel ended meanwhile
		_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}
	return withConn(ctx, c)
}

// tunnelOf finds the tunnel behind an address; nil if there is none.
func (e *innerEndpoint) tunnelOf(addr netip.AddrPort) *tunnel {
	if e == nil || !addr.Addr().Is6() || addr.Addr().As16()[0] != innerLocal {
		return nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.tunnels[addr.Addr()]
}

// send sends packets of the inner QUIC into their tunnel. Those whose tunnel is gone
// are lost.
func (e *innerEndpoint) send(p []byte, size int, to netip.AddrPort) error {
	t := e.tunnelOf(to)
	if t == nil {
		return nil
	}
	if !t.pass.count(len(p)) {
		t.pass.end()
		return nil
	}
	_ = t.flow.send(p, size)
	return nil
}

// transient says that a UDP socket's error is about one packet (an ICMP answer), not
// about the socket.
func transient(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EMSGSIZE)
}

// What quic-go calls an initial packet size: the smallest that QUIC allows, so that
// an inner packet and its wrapping fit an outer one on every path.
const smallestPacket = 1200

// quicConfig is what all QUIC endpoints of the server have.
func (s *server) quicConfig() *quic.Config {
	return &quic.Config{
		Versions:             []quic.Version{quic.Version1, quic.Version2},
		HandshakeIdleTimeout: 5 * time.Second,
		MaxIdleTimeout:       30 * time.Second,
		MaxIncomingStreams:   100,
		EnableDatagrams:      s.cfg.UDP,
		Tracer:               traceBacklog,
		Allow0RTT:            false, // a CONNECT is not idempotent
		AllowConnectionWindowIncrease: func(c *quic.Conn, _ uint64) bool {
			v := visitorOf(c.Context())
			return v != nil && v.guest.Load() // strangers cannot make the relay hold much
		},
	}
}
