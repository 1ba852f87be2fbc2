package amnesiawg

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/bind"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk"
)

// servers are the server halves of one plugin value that listen.
type servers struct {
	mu   sync.Mutex
	live map[sdk.Env]*server
}

func newServers() *servers { return &servers{live: map[sdk.Env]*server{}} }

// listen starts the server half.
func (all *servers) listen(ctx context.Context, env sdk.Env, cfg Config) (net.Listener, error) {
	id, err := loadIdentity(env.State())
	if err != nil {
		return nil, err
	}
	if env.State() == "" {
		env.Log().Warn("no state folder is lent: links end with this process")
	}
	s, err := newServer(env, cfg, id)
	if err != nil {
		return nil, err
	}
	if err := s.open(ctx, id); err != nil {
		s.shut()
		return nil, err
	}
	all.mu.Lock()
	all.live[env] = s
	all.mu.Unlock()
	s.gone = func() {
		all.mu.Lock()
		defer all.mu.Unlock()
		if all.live[env] == s {
			delete(all.live, env)
		}
	}
	return s, nil
}

// probe asks whether a client would get through: it is one, over the loopback.
func (all *servers) probe(ctx context.Context, env sdk.Env, _ Config) error {
	all.mu.Lock()
	s := all.live[env]
	all.mu.Unlock()
	if s == nil {
		return &sdk.Error{Kind: sdk.Unavailable, Op: "probe", Text: "it does not listen"}
	}
	return s.probe(ctx)
}

// outlet is one of a server's listeners: UDP sockets with the same parameters.
type outlet struct {
	name    string
	offered bool
	wire    *obfs.Params
	digest  [8]byte
	conns   []net.PacketConn
	ports   []uint16
	first   int // socket number in the bind
}

// open binds what the configuration names.
func (s *server) open(ctx context.Context, id *identity) error {
	var sockets []bind.Socket
	for _, l := range s.cfg.listeners() {
		wire, err := l.Parameters.apply(id.redrawn(l.Name), l.Generation, s.cfg.Padding)
		if err != nil {
			return err
		}
		o := &outlet{name: l.Name, offered: l.Offered, wire: wire, digest: wire.Digest(), first: len(sockets)}
		s.outlets = append(s.outlets, o)
		for i, addr := range l.Listen {
			c, err := bindAt(ctx, s.env, id, l.Name, i, addr)
			if err != nil {
				return err
			}
			s.closers = append(s.closers, c)
			port := uint16(0)
			if a, ok := c.LocalAddr().(*net.UDPAddr); ok {
				port = a.AddrPort().Port()
			}
			o.conns, o.ports = append(o.conns, c), append(o.ports, port)
			sockets = append(sockets, bind.Socket{Conn: c, Params: wire})
		}
	}
	if err := id.save(); err != nil {
		return &sdk.Error{Kind: sdk.Unavailable, Op: identityFile, Text: "the state folder cannot be written", Err: err}
	}
	return s.start(sockets)
}

// bindAt binds the nth address of a listener. A port 0 is drawn, and kept in the
// state folder: links name it.
func bindAt(ctx context.Context, env sdk.Env, id *identity, name string, n int, addr string) (net.PacketConn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if port != "0" || id.folder == "" {
		return env.ListenPacket(ctx, "udp", addr)
	}
	at := func(p uint16) string { return net.JoinHostPort(host, strconv.Itoa(int(p))) }
	if p := id.port(name, n); p != 0 {
		c, err := env.ListenPacket(ctx, "udp", at(p))
		if err != nil {
			return nil, fmt.Errorf("the UDP port that links name is not free: %w", err)
		}
		return c, nil
	}
	for range tries {
		p := uint16(20000 + rand.IntN(40000))
		c, err := env.ListenPacket(ctx, "udp", at(p))
		if err == nil {
			id.setPort(name, n, p)
			env.Log().Info("a udp port was drawn; open it in the firewall", "listener", name, "port", p)
			return c, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
	return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "listen", Text: "no free UDP port was found; name one"}
}

// invitation is how a client reaches an outlet.
func (s *server) invitation(host string, o *outlet) conf.Endpoint {
	wire := *o.wire
	if !s.cfg.setsJunk(o.name) {
		wire.Junk = obfs.DrawJunk() // the sender's own affair: each link has another
	}
	ports := append([]uint16(nil), o.ports...)
	if n := len(ports); n > 1 {
		rand.Shuffle(n, func(i, j int) { ports[i], ports[j] = ports[j], ports[i] })
	}
	return conf.Endpoint{Host: host, Ports: ports, Server: s.public, Wire: &wire, MTU: s.cfg.MTU}
}

// setsJunk says whether the operator has chosen the junk of a listener.
func (c *Config) setsJunk(name string) bool {
	for _, l := range c.listeners() {
		if l.Name == name {
			p := l.Parameters
			return p.Jc >= 0 || p.Jmin >= 0 || p.Jmax >= 0
		}
	}
	return false
}

// loopback is where a client on this machine reaches a socket.
func loopback(c net.PacketConn) netip.AddrPort {
	a, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := a.AddrPort()
	switch ip := at.Addr().Unmap(); {
	case ip == netip.IPv6Unspecified(), ip == netip.IPv4Unspecified():
		// A socket for both takes IPv4 as well; one for IPv6 alone is rare.
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	default:
		return netip.AddrPortFrom(ip, at.Port())
	}
}
