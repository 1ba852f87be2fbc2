package reality

import (
	"context"
	"crypto/ecdh"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// figures count what happened; they name nobody.
type figures struct {
	entered, strangers, unanswered, coverErrors          atomic.Int64
	outside, repeated, crowded, unsure, unready, revoked atomic.Int64
	former, ended                                        atomic.Int64 // hellos for former keys, while they are good and after
	skewed                                               atomic.Int64 // hellos outside the window since the last good one
}

func (f *figures) attrs() []any {
	return []any{
		slog.Int64("entered", f.entered.Load()), slog.Int64("strangers", f.strangers.Load()),
		slog.Int64("unanswered", f.unanswered.Load()), slog.Int64("cover_errors", f.coverErrors.Load()),
		slog.Int64("outside_window", f.outside.Load()), slog.Int64("repeated", f.repeated.Load()),
		slog.Int64("not_recorded", f.crowded.Load()), slog.Int64("after_crash", f.unsure.Load()),
		slog.Int64("not_ready", f.unready.Load()), slog.Int64("unknown_ids", f.revoked.Load()),
		slog.Int64("former_keys", f.former.Load()), slog.Int64("ended_keys", f.ended.Load()),
	}
}

// admit decides about a ClientHello record; nil leaves it to the cover. What it accepts
// it accepts once.
func (s *server) admit(record []byte) *pass {
	h, ok := parseClientHello(record[recordHeader:])
	if !ok || !h.tls13 || h.share() == nil || !s.names[h.serverName] {
		return nil
	}
	p, key := s.open(h)
	if p == nil {
		return nil
	}
	now := s.now()
	if !key.until.IsZero() && !now.Before(key.until) {
		s.figures.ended.Add(1)
		return nil
	}
	if off := now.Sub(p.claim.time); off.Abs() > s.Window {
		s.figures.outside.Add(1)
		s.outsideWindow(off)
		return nil
	}
	if !key.ids[p.claim.id] {
		if p.guest, ok = s.guests.admits(p.claim.id); !ok {
			s.figures.revoked.Add(1)
			return nil
		}
	}
	ticket, known := s.records.has(h.serverName, h.protocol)
	if !s.ready.Load() || !known {
		s.figures.unready.Add(1)
		return nil
	}
	p.ticket = ticket && h.resumes
	p.growing = ticket // Go alone sends tickets before the client has finished
	if !s.firstTime(h, p.claim.time) {
		return nil
	}
	s.figures.skewed.Store(0)
	if !key.until.IsZero() {
		s.figures.former.Add(1)
	}
	return p
}

// open finds the key that the session id was sealed for.
func (s *server) open(h *clientHello) (*pass, serverKey) {
	public, err := ecdh.X25519().NewPublicKey(h.share())
	if err != nil {
		return nil, serverKey{}
	}
	for _, private := range s.keys {
		key, err := deriveKey(private.PrivateKey, public, h.message)
		if err != nil {
			return nil, serverKey{}
		}
		if c, err := openClaim(key, h.message); err == nil {
			return &pass{key: private.Bytes(), hello: h, claim: c}, private
		}
	}
	return nil, serverKey{}
}

func (s *server) firstTime(h *clientHello, made time.Time) bool {
	id := [sessionSize]byte(h.message[sessionOffset:])
	switch s.seen.add(id, made) {
	case fresh:
		s.health.set(troubleRecord, nil)
		return true
	case repeated:
		s.figures.repeated.Add(1)
	case unsure:
		s.figures.unsure.Add(1)
	case full:
		s.figures.crowded.Add(1)
		s.health.set(troubleRecord, &sdk.Error{Kind: sdk.Full, Op: "reality", Text: "more clients came than are remembered: raise remembered"})
	case broken:
		s.figures.crowded.Add(1)
		s.health.set(troubleRecord, &sdk.Error{Kind: sdk.Unavailable, Op: "reality", Text: "accepted hellos cannot be recorded in the state folder, so nobody is let in: is the disk full?"})
	}
	return false
}

// skewedLimit is how many hellos of key holders outside the window make one message. They
// may also be old captures that somebody plays back, so this is a hint and no state.
const skewedLimit = 3

func (s *server) outsideWindow(off time.Duration) {
	if n := s.figures.skewed.Add(1); n%64 == skewedLimit {
		s.log.Warn("clients with the right key are outside the time window; this machine's clock may be wrong",
			slog.String("ahead_of_client", off.Round(time.Second).String()), slog.Int64("in_a_row", n))
	}
}

// Invite implements transport.Server. A guest gets a short id of its own, which Revoke
// ends.
func (s *server) Invite(_ context.Context, host string, g transport.Guest) (transport.Endpoint, error) {
	p := params{public: s.keys[0].PublicKey(), id: s.first, name: s.ServerNames[0], fingerprint: s.Fingerprint}
	var err error
	if p.version, err = parseVersion(s.Version); err != nil {
		return transport.Endpoint{}, err
	}
	port := transport.AddrPort(s.ln.Addr()).Port()
	switch {
	case g.Public != nil:
		if err := s.Register(context.Background(), []transport.Guest{g}); err != nil {
			return transport.Endpoint{}, err
		}
		e := p.endpoint(host, port)
		delete(e.Params, ParamShortID) // the device has its own
		return e, nil
	case g.ID != "":
		if p.id, err = s.guests.invite(g.ID, g.Expires); err != nil {
			return transport.Endpoint{}, err
		}
	}
	return p.endpoint(host, port), nil
}

// Register implements transport.Registrar: a device's key is a short id that it has drawn.
func (s *server) Register(_ context.Context, list []transport.Guest) error {
	return s.guests.register(list, func(id shortID) bool {
		return slices.ContainsFunc(s.keys, func(k serverKey) bool { return k.ids[id] })
	})
}

// Revoke implements transport.Server.
func (s *server) Revoke(_ context.Context, id string) error {
	err := s.guests.revoke(id)
	s.mu.Lock()
	streams := s.sessions[id]
	delete(s.sessions, id)
	s.mu.Unlock()
	for st := range streams {
		st.cut()
	}
	return err
}

// register keeps a guest's connection so that Revoke and the end of the invitation end it.
func (s *server) register(st *stream, g guest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[g.ID] == nil {
		s.sessions[g.ID] = map[*stream]struct{}{}
	}
	s.sessions[g.ID][st] = struct{}{}
	var timer *time.Timer
	if !g.Expires.IsZero() {
		timer = time.AfterFunc(g.Expires.Sub(s.now()), func() { st.cut() })
	}
	st.over = func() {
		if timer != nil {
			timer.Stop()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions[g.ID], st)
		if len(s.sessions[g.ID]) == 0 {
			delete(s.sessions, g.ID)
		}
	}
	if _, still := s.guests.admits(mustID(g.ShortID)); !still {
		go st.cut() // revoked during the handshake
	}
}

// mustID reads what String wrote.
func mustID(text string) shortID {
	id, _ := parseShortID(text)
	return id
}
