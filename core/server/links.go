package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
)

// endpoints are what links name: every web transport at the first public address,
// the plugin transports that are ready, and then the other addresses. A link or a Move
// takes link.MaxEndpoints of them. only are the transports that are asked for; none means
// all.
func (s *Server) endpoints(ctx context.Context, g transport.Guest, only ...string) []link.Endpoint {
	params := ccp.ParamsOf(map[string]string{"path": s.connectPath(), "ck": s.cookie()})
	var out []link.Endpoint
	for i, at := range s.addresses() {
		for _, w := range s.webs {
			if w.Name() != compatName && wanted(w.Name(), only) {
				out = append(out, link.Endpoint{Transport: w.Name(), Host: at.host, Port: at.port, Params: params})
			}
		}
		if i == 0 {
			out = append(out, s.pluginEndpoints(ctx, g, only...)...)
		}
	}
	return out
}

func wanted(name string, only []string) bool { return len(only) == 0 || slices.Contains(only, name) }

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

// newLink makes a link of the given kind; its id names it to the transports whose clients
// need an invitation, until Revoke or the end. Endpoints that are too many, or would make
// it too long, are left out, the last ones first, and the log says which; where the terms
// name transports, each is in the link, or it is refused with api.NoWay. What transports
// have allowed to a link that is refused ends.
func (s *Server) newLink(ctx context.Context, kind link.Kind, terms api.LinkTerms) (_ string, err error) {
	defer func() {
		if err == nil || terms.ID == "" { // an address link has none
			return
		}
		if names := s.asked(terms.Transports); len(names) > 0 {
			s.revokeAt(names, terms.ID, "")
		}
	}()
	key := s.ring.NoiseKeys()[0]
	l := link.Link{
		Kind: kind, Root: s.ring.RootPublic(), NoiseVersion: key.Version, NoisePublic: key.Pair.Public,
		Domain: string(s.cfg.Server.Domain), Endpoints: s.endpoints(ctx, transport.Guest{ID: terms.ID, Expires: terms.Expires}, terms.Transports...), Capabilities: uint64(ccp.AllCapabilities),
	}
	if s.pin != nil {
		l.Pins = [][32]byte{*s.pin}
	}
	if kind != link.Address {
		c := s.ring.NewEntry(terms.Expires)
		l.Entry = &link.Entry{ID: c.ID, Key: c.Key}
		l.Secret, l.Expires = terms.Secret, terms.Expires.UTC().Truncate(time.Second)
	}
	all := l.Endpoints
	l.Endpoints = all[:min(len(all), link.MaxEndpoints)]
	for {
		text, err := l.Sign(s.ring.Root())
		if err == nil || len(l.Endpoints) <= 1 {
			s.leftOut(all[len(l.Endpoints):])
			return text, errors.Join(allNamed(l.Endpoints, terms.Transports), err)
		}
		l.Endpoints = l.Endpoints[:len(l.Endpoints)-1]
	}
}

// asked are the transports that are asked for an invitation.
func (s *Server) asked(only []string) (names []string) {
	for _, t := range s.running() {
		if wanted(t.Name(), only) {
			names = append(names, t.Name())
		}
	}
	return names
}

func allNamed(in []link.Endpoint, transports []string) error {
	for _, name := range transports {
		if !slices.ContainsFunc(in, func(e link.Endpoint) bool { return e.Transport == name }) {
			return api.NoWay(name)
		}
	}
	return nil
}

// leftOut tells the log what a link had no room for.
func (s *Server) leftOut(rest []link.Endpoint) {
	if len(rest) == 0 {
		return
	}
	var names []string
	for _, e := range rest {
		names = append(names, e.Transport+" "+net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port))))
	}
	s.log.Warn("a link has no room for all endpoints", "most", link.MaxEndpoints, "left_out", names, "announced", s.ways.announced())
}
