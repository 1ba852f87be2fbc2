package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
)

const (
	// offer is everything this client has, needed what it cannot do without.
	offer  = ccp.AllCapabilities
	needed = ccp.ProofBinding | ccp.Records | ccp.Ack
	// maxHandshake bounds what the relay may send before the session stands.
	maxHandshake = 128 << 10
)

// hello dials r, sends the Hello and checks message 2.
func (c *Client) hello(ctx context.Context, r route, pattern noise.Pattern) (d *dialled, err error) {
	began := c.opt.Now()
	profile := c.Profile()
	conn, token, err := c.dial(ctx, r, profile)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer func() {
		if !stop() && err == nil {
			err = broken("the relay took too long to answer the Hello", context.Cause(ctx))
		}
		if err != nil {
			d = nil
			conn.Close()
		}
	}()

	d = &dialled{conn: conn, transport: r.Transport, endpoint: r.key(), began: began, pattern: pattern, key: profile.Relay.Noise}
	promised := profile.Relay.promised()
	d.hs, err = noise.NewHandshake(noise.Config{
		Pattern: pattern, Initiator: true, Prologue: profile.Relay.prologue(), Static: c.keys.static,
		Peer: profile.Relay.Noise, PQ: promised.Has(ccp.PQ), Random: c.opt.Rand,
	})
	if err != nil {
		return nil, err
	}
	h := ccp.Hello{
		Pattern: pattern.String(), Capabilities: offer.Names(), KeyVersion: profile.Relay.NoiseVersion,
		SupportedVersions: ccp.Versions(ccp.ProtocolVersion), Entry: token,
	}
	if h.Handshake, err = d.hs.WriteMessage(nil, nil); err != nil {
		return nil, err
	}
	var kem *noise.Decapsulator
	if promised.Has(ccp.PQ) {
		if h.PQ, kem, err = noise.PQClient(c.opt.Rand); err != nil {
			return nil, err
		}
	}
	if !promised.Has(ccp.Sealed) {
		if err := profile.identify(&h, &c.keys, c.opt.Rand); err != nil {
			return nil, err
		}
	}
	payload := h.Marshal()
	frame, err := ccp.Append(nil, ccp.Frame{Type: ccp.TypeHello, Sequence: 1, Payload: payload})
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(frame); err != nil {
		return nil, broken("sending the Hello failed", err)
	}
	auth, err := d.readAuth()
	if err != nil {
		return nil, err
	}
	return d, d.check(&profile.Relay, &h, payload, auth, kem)
}

// dial opens the stream. token is for the Hello, on transports that showed none.
func (c *Client) dial(ctx context.Context, r route, p *Profile) (conn net.Conn, token string, err error) {
	with := transport.Dial{
		Insecure: p.Relay.Insecure, DialTCP: c.opt.DialTCP, Key: r.own,
		ServerTime: func(t time.Time) { c.skew.Store(int64(t.Sub(c.opt.Now()))) },
	}
	for _, pin := range p.Relay.Pins {
		with.Pins = append(with.Pins, pin)
	}
	hint, ok := "", false
	var cred entry.Credential
	if e, found := p.Relay.entry(c.serverTime()); found {
		cred, ok = entry.Credential{ID: [8]byte(e.ID), Key: [16]byte(e.Key)}, true
		if !bare(r.Endpoint) {
			with.Token = func(method, path, st string) string {
				return cred.Token(method, path, st, c.serverTime(), c.opt.Rand)
			}
		}
	} else if len(p.Relay.Entry) > 0 {
		hint = "; this device was away so long that its right to enter has expired: ask for a new link"
	}
	began := time.Now()
	conn, err = r.dialer.Dial(ctx, r.transport(), with)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, "", &Error{Kind: Unreachable, Text: fmt.Sprintf("%s %s did not answer within %v", r.Transport, r.Host, time.Since(began).Round(time.Second)) + hint, Err: err}
	}
	if err != nil {
		return nil, "", &Error{Kind: Unreachable, Text: r.Transport + " " + r.Host + " cannot be reached" + hint, Err: err}
	}
	if ok {
		token = cred.Token(entry.MethodRaw, r.Transport, "", c.serverTime(), c.opt.Rand)
	}
	return conn, token, nil
}

// bare says that an endpoint is the reference's connect path: a path without the
// name of a cookie. No token is looked at there, and the relay's status comes
// after the Hello, so that a dialer must not wait for it.
func bare(e Endpoint) bool {
	return e.Params[transport.ParamPath] != "" && e.Params[transport.ParamCookie] == ""
}

// readAuth reads the relay's answer to the Hello.
func (d *dialled) readAuth() (ccp.ServerAuth, error) {
	f, rest, err := readFrame(d.conn, nil)
	if err != nil {
		return ccp.ServerAuth{}, err
	}
	switch f.Type {
	case ccp.TypeAuth:
	case ccp.TypeError:
		return ccp.ServerAuth{}, broken(d.transport+": the relay refused the handshake; if this lasts, its key has changed or the link is not for this relay: ask for a new link", nil)
	default:
		return ccp.ServerAuth{}, broken("the relay answered the Hello with another frame", nil)
	}
	auth, err := ccp.ParseServerAuth(f.Payload)
	if err != nil {
		return ccp.ServerAuth{}, broken("the relay's answer is malformed", err)
	}
	d.channel, d.rest = f.Channel, rest
	return auth, nil
}

// check opens message 2 and compares what is accepted with what was promised.
// Nothing in the clear frame is trusted.
func (d *dialled) check(r *Relay, h *ccp.Hello, payload []byte, auth ccp.ServerAuth, kem *noise.Decapsulator) error {
	if kem != nil {
		psk, err := kem.PSK(auth.PQ)
		if err != nil {
			return downgraded("the relay promised post-quantum secrecy and does not keep it", err)
		}
		if err := d.hs.SetPSK(psk); err != nil {
			return err
		}
	}
	msg, err := d.hs.ReadMessage(nil, auth.Handshake)
	if err != nil {
		return downgraded("the answer does not come from the relay's key; somebody may sit between", err)
	}
	ext, err := ccp.ParseExt(msg)
	if err != nil {
		return broken("the relay's answer is malformed", err)
	}
	if d.accepted, err = ext.Answer.Check(payload, h.Offer()); err != nil {
		return downgraded("somebody changed the handshake on the way", err)
	}
	if ext.Answer != nil {
		d.offered = ccp.ParseCapabilities(ext.Answer.Offered)
	}
	switch lost := d.accepted.Missing(r.promised()); {
	case ext.Domain != r.Domain:
		return downgraded("the relay calls itself "+printable(ext.Domain)+", not "+r.Domain, nil)
	case lost != 0:
		return downgraded("the relay accepts less than it promised: "+join(lost.Names())+" is missing", nil)
	case ext.ProtocolVersion != 0 && ext.ProtocolVersion != ccp.ProtocolVersion:
		return downgraded("the relay chose a protocol version that was not offered", nil)
	case !d.accepted.Has(needed):
		return downgraded("the relay lacks the extensions that this client needs (proof-binding, records, ack)", nil)
	case d.pattern == noise.IK && !d.accepted.Has(ccp.Resume):
		return downgraded("the relay answers a resumption and does not know how to resume", nil)
	}
	return r.satisfied(d.accepted)
}

// identify fills in what an unsealed Hello says of its sender.
func (p *Profile) identify(h *ccp.Hello, k *keys, random io.Reader) error {
	id := p.identity(k)
	proof, err := identity.ProveStatic(p.device(), p.Relay.Domain, p.DeviceID, id.ClientStatic, random)
	if err != nil {
		return err
	}
	h.Identity = id
	h.Proof = &ccp.StaticProof{Commitment: proof.Commitment, Response: proof.Response}
	return nil
}

func (p *Profile) identity(k *keys) *ccp.Identity {
	id := &ccp.Identity{
		DeviceID: p.DeviceID, DevicePublic: k.public,
		ClientStatic: k.static.Public, Certificate: ccp.Raw(p.Certificate),
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
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if n > 0 || err == nil {
		return append(in, buf[:n]...), nil
	}
	return nil, broken("the connection ended during the handshake", err)
}
