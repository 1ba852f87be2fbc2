package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/sdk/link"
)

// openInvite makes the first invitation of an empty relay, or shows it again while it is
// good: then by the web transports alone, which let everybody in, as a transport that draws
// a key for each invitation would take the former link's away.
func (s *Server) openInvite(ctx context.Context) error {
	first, secret, made, ok, err := s.accounts.FirstInvite(ctx, s.ring.FirstInvite)
	if err != nil {
		return fmt.Errorf("first invitation: %w", err)
	}
	if !ok {
		return nil
	}
	terms := api.LinkTerms{ID: first.ID, Secret: secret, Expires: first.Expires}
	if !made {
		if terms.Transports = s.webNames(); len(terms.Transports) == 0 {
			return nil
		}
	}
	if s.invite, err = s.newLink(ctx, link.Invite, terms); err != nil {
		return err
	}
	if made {
		s.record(audit.InviteCreated(first.ID, uint32(first.Quota), first.Expires, "first start"))
	}
	return nil
}

// webNames are the built-in transports that links name.
func (s *Server) webNames() (names []string) {
	for _, w := range s.webs {
		if w.Name() != compatName {
			names = append(names, w.Name())
		}
	}
	return names
}

// Listener is one address that the relay listens on for a transport.
type Listener struct {
	Transport string `json:"transport"`
	Address   string `json:"address"`
	// Network is that of the address: "tcp", "udp", or one of a plugin's own.
	Network string `json:"network"`
	// Web: the relay itself answers there, with TLS and HTTP.
	Web bool `json:"web"`
}

// Ready is what a started relay tells its operator.
type Ready struct {
	Event        string     `json:"event"`
	Listeners    []Listener `json:"listeners"`
	Admin        string     `json:"admin"`
	ServerStatic string     `json:"server_static"`
	// Invite is the first invitation while it is valid, else "".
	Invite string `json:"invite,omitempty"`
}

// Ready describes the relay; it listens from New on.
func (s *Server) Ready() Ready {
	r := Ready{Event: "ready", Admin: "unix:" + s.adminSocket(), ServerStatic: s.ring.NoiseKeys()[0].Pair.String(), Invite: s.invite}
	for _, ln := range s.public {
		for _, w := range s.webs {
			r.Listeners = append(r.Listeners, Listener{w.Name(), loopback(ln.Addr()), "tcp", true})
		}
	}
	for _, t := range s.running() {
		if at := t.Addr(); at != nil {
			r.Listeners = append(r.Listeners, Listener{t.Name(), loopback(at), at.Network(), false})
		}
	}
	return r
}

// loopback shows an address that a browser on this machine can open: a wildcard
// as 127.0.0.1.
func loopback(a net.Addr) string {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil || !at.Addr().IsUnspecified() {
		return a.String()
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(at.Port()))
}

func (s *Server) adminSocket() string {
	if p := string(s.cfg.Admin.Socket); p != "" {
		return p
	}
	return s.dataFile(adminSock)
}
