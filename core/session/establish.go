package session

import (
	"context"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
)

// keysTime is how long the Ack waits for transports that a device has keys for. What
// comes later the device is told in its next session.
const keysTime = time.Second

// establish does the transaction, takes the route, and sends the Ack.
func (o *opening) establish(ctx context.Context, conf *ccp.Confirm, req account.Request, former *resumption) (*Session, error) {
	ses, err := o.newSession(&req)
	if err != nil {
		return nil, err
	}
	ok := false
	defer func() {
		if !ok {
			ses.discard()
		}
	}()
	grant, err := o.srv.opt.Accounts.Establish(ctx, req)
	if req.Pair != nil {
		o.paired(err)
	}
	if err != nil {
		return nil, fromAccount(err)
	}
	bearer := grant.Token
	if bearer == "" && former != nil {
		bearer = former.bearer
	}
	ses.adopt(&grant)
	if err := ses.attach(ctx, conf.Cursor); err != nil {
		return nil, err
	}
	ack := o.ack(&grant, bearer)
	if ack.Ext != nil && len(req.Keys) > 0 {
		limit, cancel := context.WithTimeout(ctx, keysTime)
		ack.Ext.Endpoints, ack.Ext.Refused = o.srv.opt.Endpoints(limit, req.Device, req.Keys)
		cancel()
	}
	if ways := o.srv.opt.Ways; ack.Ext != nil && ways != nil {
		keyless, keyed := ways()
		room := ccp.MaxEndpoints - len(ack.Ext.Endpoints)
		ack.Ext.Endpoints = append(ack.Ext.Endpoints, keyless[:min(max(room, 0), len(keyless))]...)
		ack.Ext.Keyed = keyed[:min(len(keyed), ccp.MaxTransportKeys)]
	}
	if o.accepted.Has(ccp.Ack) {
		ack.Ext.Resume = o.resumeGrant(ctx, ses, former, bearer)
	}
	frame, err := ccp.Append(nil, ccp.Frame{Type: ccp.TypeAck, Sequence: 2, Payload: ack.Marshal()})
	if err != nil {
		return nil, refused(ccp.CodeUnavailable, "ack", err)
	}
	unit, err := o.send.AppendRecords(nil, frame, 0)
	if err != nil {
		return nil, refused(ccp.CodeUnavailable, "ack", err)
	}
	if err := o.write(ccp.TypeAck, 0, 2, unit); err != nil {
		return nil, err
	}
	ok = true
	o.started(ses, former)
	return ses, nil
}

// newSession makes the Session, still silent, and registers it, if there is room.
func (o *opening) newSession(req *account.Request) (*Session, error) {
	s := &Session{
		srv: o.srv, conn: o.conn, ticket: o.ticket, transport: o.facts.Transport,
		device: req.Device, public: req.Public, id: req.Session, caps: o.accepted,
		send: o.send, recv: o.recv, answers: 2, stop: make(chan struct{}),
	}
	s.clock.s = s
	if !o.accepted.Has(ccp.ProofBinding) {
		s.mode = o.dataMode()
	}
	return s, o.srv.register(s)
}

// adopt takes over what the transaction said.
func (s *Session) adopt(g *account.Grant) {
	s.user = ccp.User{ID: g.User.ID, Handle: g.User.Handle, DisplayName: g.User.DisplayName, AvatarURL: g.User.AvatarURL}
	s.token = g.TokenHash
	s.certDue = account.CertificateDue(g.Certificate)
}

// attach joins the relay; from here on a former connection of the device is being
// replaced.
func (s *Session) attach(ctx context.Context, cursor uint64) error {
	if s.ending.Load() {
		return refused(ccp.CodeRevoked, "ended while opening", nil)
	}
	link, err := s.srv.opt.Relay.Attach(ctx, s, cursor)
	if err != nil {
		return refused(ccp.CodeUnavailable, "attach", err)
	}
	s.link = link
	s.fence.Store(link.Fence())
	return nil
}

// started begins the data phase: what came behind the handshake is handed over.
func (o *opening) started(ses *Session, former *resumption) {
	ses.early = append([]byte(nil), o.buf[o.off:]...)
	ses.earlyPlain = o.plain
	o.handed.Store(true)
	o.ticket.Authenticated()
	m := o.srv.opt.Metrics
	label := "established"
	if former != nil {
		label = "resumed"
		m.Inc(metrics.SessionsResumed)
		if former.Transport != "" && former.Transport != ses.transport {
			m.Inc(metrics.MultipathSessions)
		}
	}
	m.Count(metrics.Handshakes, label)
	m.Observe(metrics.HandshakeSeconds, time.Since(o.start).Seconds())
	ses.start()
}

// ack is the reference's Ack with our additions, except what resume adds.
func (o *opening) ack(g *account.Grant, bearer string) ccp.Established {
	opt := &o.srv.opt
	ca := opt.DeviceCA()
	a := ccp.Established{
		Session: bearer, User: &ccp.User{ID: g.User.ID, Handle: g.User.Handle, DisplayName: g.User.DisplayName, AvatarURL: g.User.AvatarURL},
		PairingRequired: g.PairingRequired, DeviceCA: ca[:],
		NoisePublic: o.key.Pair.Public[:], NoiseVersion: o.key.Version,
		NoiseRotatesAt: o.key.RotatesAt, NoiseExpiresAt: o.key.ExpiresAt,
		Keepalive: uint32(opt.Limits.Keepalive / time.Second),
		Certificate: &ccp.CertificateSummary{
			Serial: g.Certificate.Serial, IssuedAt: g.Certificate.IssuedAt, ExpiresAt: g.Certificate.ExpiresAt,
		},
	}
	if ca == ([32]byte{}) {
		a.DeviceCA = g.Certificate.Issuer[:]
	}
	for _, k := range opt.Keys() {
		if len(a.NoiseKeys) == ccp.MaxNoiseKeys {
			break
		}
		a.NoiseKeys = append(a.NoiseKeys, ccp.NoiseKey{
			Version: k.Version, Public: k.Pair.Public, ValidAfter: k.ValidAfter, RotatesAt: k.RotatesAt, ExpiresAt: k.ExpiresAt,
		})
	}
	if g.Renewed {
		if raw, err := g.Certificate.MarshalJSON(); err == nil {
			a.DeviceCertificate = raw
		}
	}
	if !o.accepted.Has(ccp.ProofBinding) {
		return a
	}
	a.Ext = &ccp.AckExt{SendWindow: ccp.SendWindow, Time: opt.Clock().UnixMilli()}
	if opt.Entry != nil {
		if e, ok := opt.Entry(); ok {
			a.Ext.Entry = &e
		}
	}
	if opt.Catalogue != nil {
		a.Ext.Catalogue = opt.Catalogue()
	}
	return a
}

// resumeGrant tells what is taken up and makes the next token. The old one lives
// until the first record after the Ack, so a lost Ack costs nothing.
func (o *opening) resumeGrant(ctx context.Context, ses *Session, former *resumption, bearer string) *ccp.ResumeGrant {
	g := &ccp.ResumeGrant{
		Resumed: former != nil, Window: uint32(o.srv.opt.Limits.ResumeWindow / time.Second),
		Fence: ses.Fence(), Cursor: ses.link.Cursor(), Logs: logStates(ses.link.Logs()),
	}
	g.Token = o.issueResume(ctx, ses, bearer)
	if former != nil {
		ses.spent = former.key
	}
	return g
}

func logStates(in []relay.LogState) []ccp.LogState { return in[:min(len(in), ccp.MaxLogs)] }
