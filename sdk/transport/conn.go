package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"unicode/utf8"
)

// MaxUserAgent is the most bytes that Facts.UserAgent holds.
const MaxUserAgent = 256

// maxDepth bounds the walk through wrappers.
const maxDepth = 8

// FactsOf collects what is known about an accepted connection: the Path of the
// first conn in the chain of wrappers that has one, else the remote address.
// Context is never nil.
func FactsOf(conn net.Conn) Facts {
	var facts Facts
	if p, ok := find[PathFacts](conn); ok {
		facts = p.Path()
	}
	if facts.Context == nil {
		facts.Context = context.Background()
	}
	if !facts.Remote.IsValid() && !facts.Hidden && facts.Circuit == "" {
		facts.Remote = AddrPort(conn.RemoteAddr())
	}
	facts.UserAgent = Shorten(facts.UserAgent, MaxUserAgent)
	return facts
}

// CloseWrite half-closes conn where its transport can; else the error is
// [errors.ErrUnsupported].
func CloseWrite(conn net.Conn) error {
	if c, ok := conn.(CloseWriter); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

// AddrPort reads the address and port of a net.Addr; the result is not valid
// if a has none. IPv4 addresses mapped into IPv6 become IPv4.
func AddrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case nil:
		return netip.AddrPort{}
	case interface{ AddrPort() netip.AddrPort }:
		return unmap(a.AddrPort())
	default:
		return ParseAddrPort(a.String())
	}
}

// ParseAddrPort reads "address:port"; the result is not valid if text is
// something else.
func ParseAddrPort(text string) netip.AddrPort {
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.AddrPort{}
	}
	return unmap(ap)
}

func unmap(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Shorten cuts text to at most limit bytes without splitting a rune.
func Shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

// Addr is the address of an end that has no socket of its own.
type Addr struct {
	// Net is the transport's name.
	Net string
	// Text is what String returns.
	Text string
}

// Network returns the transport's name.
func (a Addr) Network() string { return a.Net }

// String returns the address.
func (a Addr) String() string { return a.Text }

// find looks for an interface in conn and in what it wraps.
func find[T any](conn net.Conn) (T, bool) {
	for range maxDepth {
		if t, ok := conn.(T); ok {
			return t, true
		}
		w, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = w.NetConn()
	}
	var zero T
	return zero, false
}
