package masque

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/quic-go/quic-go/http3"

	"github.com/commucat/commucat/sdk/transport"
)

// The tokens of extended CONNECT (RFC 9220, RFC 8441).
const (
	protocolUDP       = "connect-udp"
	protocolWebSocket = "websocket"
)

// site answers every request: guests' CONNECT itself, everything else by the
// cover, which gets request and writer as they came.
type site struct {
	*server
	// inside says that requests come through tunnels that end in this process.
	inside bool
	// hidden says that the client's address is not the packet's (a proxy's).
	hidden bool
	// altSvc is the value of the Alt-Svc header; "" over QUIC.
	altSvc string
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.altSvc != "" {
		w.Header().Set("Alt-Svc", s.altSvc)
	}
	if r.Method == http.MethodConnect && r.ProtoMajor >= 2 {
		if g, err := s.door.guest(r); err == nil && !s.closed() {
			s.guest(w, r, g)
			return
		}
	}
	s.cover.ServeHTTP(w, r)
}

// guest answers a CONNECT of somebody who has proved a key. From here on nothing
// needs to be hidden.
func (s *site) guest(w http.ResponseWriter, r *http.Request, g grant) {
	if v := visitorOf(r.Context()); v != nil {
		v.guest.Store(true)
	}
	w.Header().Del("Alt-Svc")
	pass, err := s.guests.enter(g)
	if err != nil {
		refuse(w, r, http.StatusTooManyRequests, statusLimit, err)
		return
	}
	if s.door.ended(g) { // meanwhile; a revocation from here on finds the pass
		pass.end()
	}
	switch protocolOf(r) {
	case "":
		s.stream(w, r, pass, false)
	case protocolWebSocket:
		s.stream(w, r, pass, true)
	case protocolUDP:
		s.udp(w, r, pass)
	default:
		pass.leave()
		refuse(w, r, http.StatusNotImplemented, statusDenied, errProtocol)
	}
}

// protocolOf is the :protocol of an extended CONNECT, "" for the classic one.
func protocolOf(r *http.Request) string {
	if r.ProtoMajor == 3 {
		if strings.HasPrefix(r.Proto, "HTTP/") {
			return ""
		}
		return r.Proto
	}
	if p := r.Header[":protocol"]; len(p) > 0 {
		return p[0]
	}
	return ""
}

// self says that host is a name of this site: the one in TLS, the configured one,
// or an address where TLS named none.
func (s *site) self(r *http.Request, host string) bool {
	host = strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(host); err == nil {
		return r.TLS.ServerName == "" || strings.EqualFold(host, r.TLS.ServerName)
	}
	return strings.EqualFold(host, r.TLS.ServerName) || s.cfg.Name != "" && strings.EqualFold(host, s.cfg.Name)
}

// stream answers CONNECT to the site itself: the body is the relay's stream.
func (s *site) stream(w http.ResponseWriter, r *http.Request, pass *pass, messages bool) {
	host, _, err := authority(r.Host)
	if err != nil || !s.self(r, host) {
		pass.leave()
		refuse(w, r, http.StatusForbidden, statusDenied, errTarget)
		return
	}
	facts := s.facts(r)
	if r.ProtoMajor == 2 {
		s.streamH2(w, r, pass, facts, messages)
		return
	}
	w.WriteHeader(http.StatusOK)
	str, err := w.(http3.HTTPStreamer).HTTPStream()
	if err != nil {
		pass.leave()
		return
	}
	local, remote := addresses(r)
	c := &streamConn{str: str, local: local, remote: remote, facts: facts, pass: pass}
	s.deliver(pass, wrap(c, messages))
}

// wrap puts WebSocket messages around a stream where they were asked for.
func wrap(c net.Conn, messages bool) net.Conn {
	if messages {
		return newMessages(c, false)
	}
	return c
}

// deliver hands a stream to the relay.
func (s *site) deliver(pass *pass, c net.Conn) bool {
	pass.hold(c)
	if err := s.hand(c); err != nil {
		s.log.Warn("stream dropped", "error", err)
		_ = c.Close()
		return false
	}
	return true
}

func (s *site) facts(r *http.Request) transport.Facts {
	f := transport.Facts{
		Transport: Name,
		Remote:    transport.ParseAddrPort(r.RemoteAddr),
		Hidden:    s.hidden,
		Entered:   true,
		UserAgent: strings.Clone(transport.Shorten(r.UserAgent(), transport.MaxUserAgent)),
	}
	f.Remote = s.origin(f.Remote)
	return f
}

// origin is where a connection with this remote address really comes from: the guest's
// address, where it comes through a tunnel of ours. Addresses of tunnels mean nothing
// elsewhere: a network may use the same.
func (s *site) origin(remote netip.AddrPort) netip.AddrPort {
	if s.inside {
		if t := s.inner.tunnelOf(remote); t != nil {
			return t.client
		}
	}
	return remote
}

// addresses are those of a request's connection, as they are at the time of asking:
// a client may move.
func addresses(r *http.Request) (local, remote func() net.Addr) {
	if c := connOf(r.Context()); c != nil {
		return c.LocalAddr, c.RemoteAddr
	}
	l, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		l = transport.Addr{Net: Name}
	}
	var peer net.Addr = transport.Addr{Net: Name, Text: r.RemoteAddr}
	if ap := transport.ParseAddrPort(r.RemoteAddr); ap.IsValid() {
		peer = net.TCPAddrFromAddrPort(ap)
	}
	return func() net.Addr { return l }, func() net.Addr { return peer }
}
