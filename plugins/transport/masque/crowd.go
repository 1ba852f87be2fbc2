package masque

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/commucat/commucat/sdk/transport"
)

// Above this many new connections a second, addresses must be validated by a Retry
// (RFC 9000 section 8.1.2): an attacker who forges addresses then costs a packet
// each, no handshake.
const (
	newRate  = 200
	newBurst = 400
)

var errCrowded = errors.New("too many connections")

// crowd bounds connections, strangers' and guests', before any key work.
type crowd struct {
	most, perSource int
	now             func() time.Time

	mu      sync.Mutex
	count   int
	sources map[netip.Prefix]int
	tokens  float64 // unvalidated connections that may still begin
	filled  time.Time
}

func newCrowd(most, perSource int, now func() time.Time) *crowd {
	return &crowd{most: most, perSource: perSource, now: now, sources: make(map[netip.Prefix]int), tokens: newBurst, filled: now()}
}

// visitor is one QUIC connection; it travels in the context of its requests.
type visitor struct{ guest atomic.Bool }

type visitorKey struct{}

func visitorOf(ctx context.Context) *visitor {
	v, _ := ctx.Value(visitorKey{}).(*visitor)
	return v
}

// suspicious is quic.Transport.VerifySourceAddress. Addresses that may be forged get half
// of the places at most: nobody can fill up those of another source, or all.
func (c *crowd) suspicious(a net.Addr) bool {
	now, source := c.now(), sourceOf(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if 2*c.sources[source] >= c.perSource || 2*c.count >= c.most {
		return true
	}
	c.tokens = min(newBurst, c.tokens+newRate*now.Sub(c.filled).Seconds())
	c.filled = now
	if c.tokens < 1 {
		return true
	}
	c.tokens--
	return false
}

// admit is quic.Transport.ConnContext. What it refuses gets CONNECTION_REFUSED.
func (c *crowd) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	source := sourceOf(info.RemoteAddr)
	if !c.enter(source) {
		return nil, errCrowded
	}
	context.AfterFunc(ctx, func() { c.leave(source) })
	return context.WithValue(ctx, visitorKey{}, new(visitor)), nil
}

// enter counts a connection; false says that there is no place for it.
func (c *crowd) enter(source netip.Prefix) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count >= c.most || c.sources[source] >= c.perSource {
		return false
	}
	c.count++
	c.sources[source]++
	return true
}

func (c *crowd) leave(source netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count--
	if c.sources[source]--; c.sources[source] == 0 {
		delete(c.sources, source)
	}
}

// bounded is a TCP listener that closes at once what its crowd has no place for.
type bounded struct {
	net.Listener
	crowd *crowd
}

// Accept implements net.Listener.
func (b bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := sourceOf(c.RemoteAddr())
		if b.crowd.enter(source) {
			return &counted{Conn: c, left: sync.OnceFunc(func() { b.crowd.leave(source) })}, nil
		}
		_ = c.Close()
	}
}

// counted gives its place back when it is closed.
type counted struct {
	net.Conn
	left func()
}

// Close implements net.Conn. The place is free before the peer learns of the end.
func (c *counted) Close() error {
	c.left()
	return c.Conn.Close()
}

// sourceOf is the address of an IPv4 client, the /64 of an IPv6 one.
func sourceOf(a net.Addr) netip.Prefix {
	ip := transport.AddrPort(a).Addr().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}
