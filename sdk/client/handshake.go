package client

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
)

// maxHandshake bounds what the relay may send before the session stands.
const maxHandshake = 128 << 10

// offer is everything this client has.
const offer = ccp.AllCapabilities

// dialled is a connection whose message 2 has arrived and was found good; it has
// touched nothing at the relay yet.
type dialled struct {
	conn      net.Conn
	transport string
	endpoint  string
	began     time.Time

	hs       *noise.Handshake
	pattern  noise.Pattern
	accepted ccp.Capabilities
	channel  uint32
	rest     []byte
}

// Close implements io.Closer, for the losers of a race.
func (d *dialled) Close() error { return d.conn.Close() }

// route is one endpoint with the dialer for it.
type route struct {
	Endpoint
	dialer transport.Dialer
}

func (r route) key() string { return r.Transport + " " + r.Host }

// endpoints lists what can be dialled, the last good one first, then in the
// order of the program's dialers; distrusted ones are left out.
func (c *Client) endpoints() []route {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all, rest []route
	now := c.opt.Now()
	for _, d := range c.opt.Dialers {
		if c.opt.Transport != "" && d.Name() != c.opt.Transport {
			continue
		}
		for _, e := range c.profile.Relay.Endpoints {
			r := route{e, d}
			switch {
			case e.Transport != d.Name() || c.avoid[r.key()].After(now):
			case r.key() == c.best:
				all = append(all, r)
			default:
				rest = append(rest, r)
			}
		}
	}
	return append(all, rest...)
}

// connect dials and makes the handshake: several endpoints at once if the first
// ones are slow, but Confirm goes out on one connection only.
func (c *Client) connect(ctx context.Context) (*session, error) {
	routes := c.endpoints()
	if len(routes) == 0 {
		return nil, &Error{Kind: Unreachable, Text: "every way to the relay was found tampered with a moment ago; waiting"}
	}
	pattern, resume := c.plan()
	d, err := race(ctx, len(routes), raceDelay, func(ctx context.Context, i int) (*dialled, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		d, err := c.hello(ctx, routes[i], pattern)
		var e *Error
		if errors.As(err, &e) && e.Kind == Downgraded {
			c.mu.Lock()
			c.avoid[routes[i].key()] = c.opt.Now().Add(distrust)
			c.mu.Unlock()
		}
		if err != nil {
			c.opt.Log.Debug("endpoint failed", "transport", routes[i].Transport, "error", err)
		}
		return d, err
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { d.conn.Close() })
	s, err := c.confirm(d, resume)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		d.conn.Close()
		if code, ok := IsRefused(err); ok && code == ccp.CodeUseXK {
			c.mu.Lock()
			c.useXK = true
			c.mu.Unlock()
			return c.connect(ctx)
		}
		return nil, err
	}
	return s, nil
}

// plan chooses the pattern: IK only with an unspent resume token and a completed
// XK under the same server key in the last 24 h.
func (c *Client) plan() (noise.Pattern, []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opt.Now()
	if len(c.state.Resume) != 32 || !c.state.ResumeUntil.After(now) {
		return noise.XK, nil
	}
	token := c.state.Resume
	recent := now.Sub(c.full) < 24*time.Hour && c.state.ResumeKey == c.profile.Relay.Noise
	if c.useXK || !recent || !c.promised().Has(ccp.ProofBinding|ccp.Resume) {
		return noise.XK, token
	}
	return noise.IK, token
}

// promised is the floor of what must be accepted; mu is held.
func (c *Client) promised() ccp.Capabilities {
	return ccp.Capabilities(c.profile.Relay.Promised) & ccp.AllCapabilities
}

// hello dials r, sends the Hello and checks message 2.
func (c *Client) hello(ctx context.Context, r route, pattern noise.Pattern) (d *dialled, err error) {
	began := c.opt.Now()
	c.mu.Lock()
	profile, promised := *c.profile, c.promised()
	c.mu.Unlock()

	with := transport.Dial{
		Insecure: profile.Relay.Insecure, DialTCP: c.opt.DialTCP,
		ServerTime: func(t time.Time) { c.skew.Store(int64(t.Sub(c.opt.Now()))) },
	}
	for _, p := range profile.Relay.Pins {
		with.Pins = append(with.Pins, p)
	}
	if e, ok := profile.Relay.entry(c.serverTime()); ok {
		cred := entry.Credential{ID: [8]byte(e.ID), Key: [16]byte(e.Key)}
		with.Token = func(method, path, st string) string {
			return cred.Token(method, path, st, c.serverTime(), c.opt.Rand)
		}
	}
	conn, err := r.dialer.Dial(ctx, transport.Endpoint(r.Endpoint), with)
	if err != nil {
		return nil, &Error{Kind: Unreachable, Text: r.Transport + " " + r.Host + " cannot be reached", Err: err}
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	d = &dialled{conn: conn, transport: r.Transport, endpoint: r.key(), began: began, pattern: pattern}
	pq := promised.Has(ccp.PQ)
	d.hs, err = noise.NewHandshake(noise.Config{
		Pattern: pattern, Initiator: true, Prologue: profile.Relay.prologue(), Static: noise.KeyPairFrom(profile.Static),
		Peer: profile.Relay.Noise, PQ: pq, Random: c.opt.Rand,
	})
	if err != nil {
		return nil, err
	}
	h := ccp.Hello{
		Pattern: pattern.String(), Capabilities: offer.Names(), KeyVersion: profile.Relay.NoiseVersion,
		SupportedVersions: ccp.Versions(ccp.ProtocolVersion),
	}
	if h.Handshake, err = d.hs.WriteMessage(nil, nil); err != nil {
		return nil, err
	}
	var kem *noise.Decapsulator
	if pq {
		if h.PQ, kem, err = noise.PQClient(c.opt.Rand); err != nil {
			return nil, err
		}
	}
	if !promised.Has(ccp.Sealed) {
		if err := profile.identify(&h, c.opt.Rand); err != nil {
			return nil, err
		}
	}
	payload := h.Marshal()
	if err := writeFrame(conn, nil, ccp.Frame{Type: ccp.TypeHello, Sequence: 1, Payload: payload}); err != nil {
		return nil, broken("sending the Hello failed", err)
	}

	f, rest, err := readFrame(conn, nil)
	if err != nil {
		return nil, err
	}
	if f.Type == ccp.TypeError {
		return nil, &Error{Kind: Broken, Text: r.Transport + ": the relay refused the handshake; its key may have changed, or the link is not for this relay"}
	}
	if f.Type != ccp.TypeAuth {
		return nil, broken("the relay answered the Hello with another frame", nil)
	}
	auth, err := ccp.ParseServerAuth(f.Payload)
	if err != nil {
		return nil, broken("the relay's answer is malformed", err)
	}
	if pq {
		psk, err := kem.PSK(auth.PQ)
		if err != nil {
			return nil, downgraded("the relay promised post-quantum secrecy and does not keep it", err)
		}
		if err := d.hs.SetPSK(psk); err != nil {
			return nil, err
		}
	}
	msg, err := d.hs.ReadMessage(nil, auth.Handshake)
	if err != nil {
		return nil, downgraded("the answer does not come from the relay's key", err)
	}
	ext, err := ccp.ParseExt(msg)
	if err != nil {
		return nil, broken("the relay's answer is malformed", err)
	}
	if d.accepted, err = ext.Answer.Check(payload, h.Offer()); err != nil {
		return nil, downgraded("somebody changed the handshake on the way", err)
	}
	switch {
	case ext.Domain != profile.Relay.Domain:
		return nil, downgraded("the relay calls itself "+printable(ext.Domain)+", not "+profile.Relay.Domain, nil)
	case d.accepted.Missing(promised) != 0:
		return nil, downgraded("the relay accepts less than it promised", nil)
	case !d.accepted.Has(ccp.ProofBinding | ccp.Ack | ccp.Records):
		return nil, downgraded("the relay lacks the extensions that this client needs (proof-binding, records, ack)", nil)
	}
	d.channel, d.rest = f.Channel, rest
	return d, nil
}

func downgraded(text string, err error) error {
	return &Error{Kind: Downgraded, Text: text, Err: err}
}

// printable shortens a text of the peer for an error.
func printable(s string) string {
	out := []rune{}
	for _, r := range s {
		if len(out) == 64 {
			break
		}
		if r < 0x20 || r == 0x7f {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}

// identify fills in what an unsealed Hello says of its sender.
func (p *Profile) identify(h *ccp.Hello, random io.Reader) error {
	id := p.identity()
	proof, err := identity.ProveStatic(p.device(), p.Relay.Domain, p.DeviceID, id.ClientStatic, random)
	if err != nil {
		return err
	}
	h.Identity = id
	h.Proof = &ccp.StaticProof{Commitment: proof.Commitment, Response: proof.Response}
	return nil
}

func (p *Profile) identity() *ccp.Identity {
	id := &ccp.Identity{
		DeviceID: p.DeviceID, DevicePublic: p.device().Public(),
		ClientStatic: noise.KeyPairFrom(p.Static).Public, Certificate: ccp.Raw(p.Certificate),
	}
	if p.Handle != "" && p.UserID == "" {
		id.User = &ccp.UserHints{Handle: p.Handle, DisplayName: p.DisplayName}
	}
	return id
}

func (r *Relay) prologue() []byte {
	if r.Prologue == "" {
		return []byte(noise.DefaultPrologue)
	}
	return []byte(r.Prologue)
}

// confirm finishes the handshake on d and reads the relay's Ack.
func (c *Client) confirm(d *dialled, resume []byte) (*session, error) {
	var (
		out      []byte
		err      error
		sequence = uint32(1)
	)
	if d.pattern == noise.XK {
		msg, err := d.hs.WriteMessage(nil, nil)
		if err != nil {
			return nil, err
		}
		sequence++
		if out, err = ccp.Append(out, ccp.Frame{Type: ccp.TypeAuth, Channel: d.channel, Sequence: sequence, Payload: ccp.ClientAuth{Handshake: msg}.Marshal()}); err != nil {
			return nil, err
		}
	}
	send, recv, err := d.hs.Split()
	if err != nil {
		return nil, err
	}
	s := &session{
		c: c, conn: d.conn, transport: d.transport, accepted: d.accepted,
		seal: noise.NewSealer(send), open: noise.NewOpener(recv),
		wake: make(chan struct{}, 1), calls: make(map[uint32]chan answer),
	}
	cf := c.confirmation(d, resume)
	sequence++
	frame, err := ccp.Append(nil, ccp.Frame{Type: ccp.TypeAuth, Sequence: sequence, Payload: cf.Marshal()})
	if err != nil {
		return nil, err
	}
	if out, err = s.seal.AppendRecords(out, frame, noise.DefaultRecord); err != nil {
		return nil, err
	}
	if _, err := d.conn.Write(out); err != nil {
		return nil, broken("sending the Confirm failed", err)
	}
	s.sequence = sequence
	if err := s.readAck(d); err != nil {
		return nil, err
	}
	return s, nil
}

func (c *Client) confirmation(d *dialled, resume []byte) ccp.Confirm {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.profile
	static := noise.KeyPairFrom(p.Static).Public
	cf := ccp.Confirm{
		Proof:  identity.SignConfirm(p.device(), p.Relay.Domain, p.DeviceID, static, d.hs.Hash()),
		Cursor: c.in.cursor,
	}
	if d.accepted.Has(ccp.Sealed) {
		cf.Identity = p.identity()
	}
	if len(p.Invite) == 16 {
		cf.Invite = (*[16]byte)(p.Invite)
	}
	if len(p.Pairing) == 16 {
		cf.Pair = ccp.PairSecret([16]byte(p.Pairing), p.Name)
	}
	if len(resume) == 32 && d.accepted.Has(ccp.Resume) {
		cf.Resume = (*[32]byte)(resume)
	}
	return cf
}

// readAck reads records until the first frame is whole: the Ack, or an Error.
func (s *session) readAck(d *dialled) error {
	in, plain := append([]byte(nil), d.rest...), []byte(nil)
	for {
		p, n, err := s.open.Next(in)
		switch {
		case errors.Is(err, noise.ErrIncomplete):
			if in, err = readMore(d.conn, in); err != nil {
				return err
			}
			continue
		case err != nil:
			return broken("the relay's Ack cannot be decrypted", err)
		}
		plain = append(plain, p...)
		in = in[n:]
		f, used, err := ccp.Decode(plain)
		if errors.Is(err, ccp.ErrIncomplete) {
			if len(plain) > maxHandshake {
				return broken("the relay's Ack is too large", nil)
			}
			continue
		}
		if err != nil {
			return broken("the relay's Ack is malformed", err)
		}
		switch f.Type {
		case ccp.TypeError:
			return s.failed(f)
		case ccp.TypePad:
			plain = plain[used:]
			continue
		case ccp.TypeAck:
		default:
			return broken("the relay sent another frame before its Ack", nil)
		}
		ack, err := ccp.ParseEstablished(f.Payload)
		if err != nil {
			return broken("the relay's Ack is malformed", err)
		}
		s.early = append([]byte(nil), plain[used:]...)
		s.rest = append([]byte(nil), in...)
		return s.c.established(s, d, ack)
	}
}

func writeFrame(w io.Writer, buf []byte, f ccp.Frame) error {
	b, err := ccp.Append(buf, f)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// readFrame reads one clear frame and returns the bytes behind it.
func readFrame(conn net.Conn, in []byte) (ccp.Frame, []byte, error) {
	for {
		f, n, err := ccp.Decode(in)
		if err == nil {
			return f, in[n:], nil
		}
		if !errors.Is(err, ccp.ErrIncomplete) {
			return ccp.Frame{}, nil, broken("what answers is not a relay", err)
		}
		if in, err = readMore(conn, in); err != nil {
			return ccp.Frame{}, nil, err
		}
	}
}

func readMore(conn net.Conn, in []byte) ([]byte, error) {
	if len(in) >= maxHandshake {
		return nil, broken("the relay's answer is too large", nil)
	}
	buf := make([]byte, 8192)
	n, err := conn.Read(buf)
	if n > 0 {
		return append(in, buf[:n]...), nil
	}
	if err == nil {
		return in, nil
	}
	return nil, broken("the connection ended during the handshake", err)
}

func (c *Client) serverTime() time.Time { return c.opt.Now().Add(time.Duration(c.skew.Load())) }
