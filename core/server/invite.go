package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/sdk/link"
)

// bootstrapLife is the life of the invitation that a relay without any account
// makes for itself.
const bootstrapLife = 24 * time.Hour

// openInvite makes the first invitation of an empty relay.
func (s *Server) openInvite(ctx context.Context) error {
	secret, id, made, err := s.accounts.BootstrapInvite(ctx)
	if err != nil {
		return fmt.Errorf("first invitation: %w", err)
	}
	if !made {
		return nil
	}
	expires := s.opt.Clock().Add(bootstrapLife)
	if s.invite, err = s.newLink(ctx, link.Invite, api.LinkTerms{ID: id, Secret: secret, Expires: expires}); err != nil {
		return err
	}
	s.record(audit.InviteCreated(id, 16, expires, "first start"))
	return nil
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
