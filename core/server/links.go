package server

import (
	"net"
	"net/netip"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
)

// endpoints are what links name: every web transport at every public address.
func (s *Server) endpoints() []link.Endpoint {
	params := ccp.ParamsOf(map[string]string{"path": s.connectPath(), "ck": s.cookie()})
	var out []link.Endpoint
	for _, at := range s.addresses() {
		for _, w := range s.webs {
			if w.Name() == compatName {
				continue
			}
			if len(out) == link.MaxEndpoints {
				return out
			}
			out = append(out, link.Endpoint{Transport: w.Name(), Host: at.host, Port: at.port, Params: params})
		}
	}
	return out
}

type address struct {
	host string
	port uint16
}

// addresses are the configured public endpoints, or the domain with the port of
// the first listener. A listener on one address only is reachable there alone.
func (s *Server) addresses() []address {
	var out []address
	for _, a := range s.cfg.Server.PublicEndpoints {
		out = append(out, address{a.Host(), a.Port()})
	}
	if len(out) > 0 {
		return out
	}
	host, port := string(s.cfg.Server.Domain), uint16(0)
	if s.opt.Prepare && len(s.public) == 0 && len(s.cfg.Server.Listen) > 0 {
		a := s.cfg.Server.Listen[0]
		port = a.Port()
		if ip, err := netip.ParseAddr(a.Host()); err == nil && !ip.IsUnspecified() {
			host = ip.Unmap().String()
		}
	}
	if len(s.public) > 0 {
		if a, ok := s.public[0].Addr().(*net.TCPAddr); ok {
			port = uint16(a.Port)
			if ip, ok := netip.AddrFromSlice(a.IP); ok && !ip.IsUnspecified() {
				host = ip.Unmap().String()
			}
		}
	}
	return []address{{host, port}}
}

// newLink makes a link of the given kind; entryUntil bounds its entry credential.
func (s *Server) newLink(kind link.Kind, secret [16]byte, expires time.Time) (string, error) {
	key := s.ring.NoiseKeys()[0]
	l := link.Link{
		Kind: kind, Root: s.ring.RootPublic(), NoiseVersion: key.Version, NoisePublic: key.Pair.Public,
		Domain: string(s.cfg.Server.Domain), Endpoints: s.endpoints(), Capabilities: uint64(ccp.AllCapabilities),
	}
	if s.pin != nil {
		l.Pins = [][32]byte{*s.pin}
	}
	if kind != link.Address {
		c := s.ring.NewEntry(expires)
		l.Entry = &link.Entry{ID: c.ID, Key: c.Key}
		l.Secret, l.Expires = secret, expires.UTC().Truncate(time.Second)
	}
	return l.Sign(s.ring.Root())
}
