package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/core/front"
	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/sdk/link"
)

// restAPI makes the clients' REST interface on the public port.
func (s *Server) restAPI() (front.API, error) {
	opt := api.Options{
		Accounts: s.accounts, Pairing: s.codes, Info: s.info, PairLink: s.pairLink, Unpaired: s.revokeGuest, Cover: s.cover,
		Cookie: s.cookie(), Verify: s.entries.Verify, Public: s.cfg.Compat.PublicAPI,
		PerMinute: s.cfg.Limits.HTTPRate, Burst: s.cfg.Limits.HTTPBurst, Clock: s.opt.Clock, Log: s.log, Metrics: s.metrics,
	}
	if s.cfg.Compat.PublicHealth {
		opt.Health = s.operator.Public()
	}
	return api.New(opt)
}

// info is what server-info tells.
func (s *Server) info() api.Info {
	i := api.Info{
		Domain: string(s.cfg.Server.Domain), Root: s.ring.RootPublic(), CA: s.ring.CA().Public(), Catalogue: s.ring.Catalogue(),
		Keepalive: s.cfg.Server.Keepalive, PresenceTTL: s.cfg.Limits.PresenceTTL, TokenTTL: s.accounts.TokenTTL(),
		PairingTTL: s.cfg.Pairing.TTL, AutoApprove: s.accounts.Registration() == account.Open, MaxDevices: int(s.cfg.Limits.Devices),
		PostQuantum: true,
	}
	for _, k := range s.ring.NoiseKeys() {
		i.Noise = append(i.Noise, api.NoiseKey{
			Version: k.Version, Public: k.Pair.Public, ValidAfter: k.ValidAfter, RotatesAt: k.RotatesAt, ExpiresAt: k.ExpiresAt,
		})
	}
	return i
}

func (s *Server) pairLink(ctx context.Context, user, device string, ttl time.Duration) (text, id string, expires time.Time, err error) {
	code, err := s.codes.Create(ctx, user, device, ttl)
	if err != nil {
		return "", "", time.Time{}, err
	}
	if text, err = s.newLink(ctx, link.Pairing, api.LinkTerms{ID: code.ID, Secret: code.Secret, Expires: code.Expires}); err != nil { // nobody can hold it
		return "", "", time.Time{}, errors.Join(err, s.codes.Revoke(ctx, code.ID))
	}
	return text, code.ID, code.Expires, nil
}

// openOperator makes the operator's interface; its sockets come later.
func (s *Server) openOperator(context.Context) (err error) {
	s.operator, err = api.NewAdmin(api.AdminOptions{
		Accounts: s.accounts, Codes: s.codes, Link: s.operatorLink, Keys: s.keys,
		RotateKeys: func(ctx context.Context) error {
			changes, err := s.rotateKeys(ctx, s.ring.Renew)
			s.recordKeys(changes)
			return err
		},
		Reload: s.reload, Status: s.status,
		Plugins: func() any { return s.host.States() }, UpgradePlugin: s.UpgradePlugin, ProbeTransport: s.probeTransport, TransportKey: s.setTransportKey,
		Snapshot: s.snapshot,
		Checks:   map[string]func(context.Context) error{"storage": s.checkStorage, "ledger": s.checkLedger},
		Record:   s.recordOperator, Token: string(s.cfg.Admin.Token.Bytes()), Version: s.opt.Version,
		Clock: s.opt.Clock, Log: s.log, Metrics: s.metrics,
	})
	return err
}

func (s *Server) operatorLink(ctx context.Context, terms api.LinkTerms) (string, error) {
	kinds := map[api.LinkKind]link.Kind{api.InviteLink: link.Invite, api.PairingLink: link.Pairing, api.AddressLink: link.Address}
	k, ok := kinds[terms.Kind]
	if !ok {
		return "", fmt.Errorf("no links of kind %q", terms.Kind)
	}
	return s.newLink(ctx, k, terms)
}

// recordOperator maps the operator's changes to events of the audit chain; device
// changes arrive through the account hooks.
func (s *Server) recordOperator(_ context.Context, action, subject string) {
	switch action {
	case "link.create":
		s.record(audit.InviteCreated(subject, 0, time.Time{}, "operator"))
	case "link.revoke":
		s.revokeGuest(subject)
		s.record(audit.InviteRevoked(subject, "operator"))
	case "pair.revoke":
		// Whether there was such a link nobody has looked; what cannot be one would only
		// be refused by the transports, again and again.
		if id, err := hex.DecodeString(subject); err == nil && len(id) == sha256.Size {
			s.revokeGuest(subject)
		}
	}
}

// openAdmin binds the operator's sockets.
func (s *Server) openAdmin(ctx context.Context) error {
	ln, err := api.ListenUnix(s.adminSocket(), sandbox.Confined)
	if err != nil {
		return err
	}
	s.adminSockets = append(s.adminSockets, adminSocket{ln, s.operator})
	s.onClose(func(context.Context) error {
		for _, a := range s.adminSockets {
			a.Close()
		}
		return nil
	})
	if s.cfg.Admin.Listen == "" {
		return nil
	}
	tcp, err := api.ListenTCP(ctx, string(s.cfg.Admin.Listen))
	if err != nil {
		return err
	}
	s.adminSockets = append(s.adminSockets, adminSocket{tcp, s.operator.OverTCP()})
	return nil
}

// adminSocket is one way to the operator's interface.
type adminSocket struct {
	net.Listener
	handler http.Handler
}

// serve answers until ctx ends.
func (a adminSocket) serve(ctx context.Context) error {
	srv := &http.Server{Handler: a.handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(a.Listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) checkStorage(ctx context.Context) error {
	if s.store.Ready == nil {
		return nil
	}
	return s.store.Ready(ctx)
}

// checkLedger asks whether the audit chain takes records: a ledger that is away has its
// records kept for it, and takes nothing out of service.
func (s *Server) checkLedger(context.Context) error { return s.audit.Ready() }

// Ledger is how far one ledger is.
type Ledger struct {
	Name string `json:"name"`
	// Behind is how many records it lacks, Error why it takes none.
	Behind uint64 `json:"behind"`
	Error  string `json:"error,omitempty"`
}

// status is what the operator sees of the running relay.
func (s *Server) status() any {
	established, opening := s.sessions.Sessions()
	ledgers, degraded := s.parts()
	return struct {
		Domain   string            `json:"domain"`
		Sessions int               `json:"sessions"`
		Opening  int               `json:"opening"`
		Listen   []Listener        `json:"listeners"`
		Ledgers  []Ledger          `json:"ledgers,omitempty"`
		Degraded map[string]string `json:"degraded,omitempty"`
	}{string(s.cfg.Server.Domain), established, opening, s.Ready().Listeners, ledgers, degraded}
}

// parts are the ledgers, and what does not work without taking the relay out of service.
func (s *Server) parts() (ledgers []Ledger, degraded map[string]string) {
	degraded = map[string]string{}
	s.degraded.Range(func(k, v any) bool {
		degraded[k.(string)] = v.(error).Error()
		return true
	})
	for _, st := range s.audit.States() {
		l := Ledger{Name: st.Name, Behind: st.Behind}
		if st.Err != nil {
			l.Error = st.Err.Error()
			degraded["ledger "+st.Name] = fmt.Sprintf("%d records behind: %v", st.Behind, st.Err)
		}
		ledgers = append(ledgers, l)
	}
	return ledgers, degraded
}

// keys shows the public halves.
func (s *Server) keys() any {
	type row struct {
		Version   uint32    `json:"version"`
		Public    string    `json:"public"`
		RotatesAt time.Time `json:"rotates_at"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	root, ca := s.ring.RootPublic(), s.ring.CA().Public()
	out := struct {
		Root  string `json:"root"`
		CA    string `json:"ca"`
		Noise []row  `json:"noise"`
		Pin   string `json:"tls_pin,omitempty"`
	}{Root: fmt.Sprintf("%x", root), CA: fmt.Sprintf("%x", ca)}
	for _, k := range s.ring.NoiseKeys() {
		out.Noise = append(out.Noise, row{k.Version, k.Pair.String(), k.RotatesAt, k.ExpiresAt})
	}
	if s.pin != nil {
		out.Pin = fmt.Sprintf("%x", *s.pin)
	}
	return out
}
