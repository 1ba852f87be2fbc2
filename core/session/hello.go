package session

import (
	"bytes"
	"context"
	"slices"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/noise"
)

// maxKeys is how many server keys are tried for a Hello that names none.
const maxKeys = 3

// readHello reads the Hello and makes every check that costs nothing: entry
// token, version, pattern, sizes, capabilities.
func (o *opening) readHello() error {
	f, err := o.frame(ccp.TypeHello)
	if err != nil {
		return err
	}
	o.srv.count(metrics.FramesIngress, 1)
	o.framed = true
	o.channel = f.Channel
	o.digest = bytes.Clone(f.Payload)
	hello, parseErr := ccp.ParseHello(o.digest)
	if check := o.srv.opt.EntryToken; check != nil && !o.entered && hello.Entry != "" {
		o.entered = check(o.facts.Transport, hello.Entry)
	}
	if o.version, err = ccp.NegotiateVersion(hello); err != nil {
		return malformed("version", err)
	}
	if parseErr != nil {
		return malformed("hello", parseErr)
	}
	o.hello = hello
	return o.negotiate()
}

// negotiate decides what holds for this connection.
func (o *opening) negotiate() error {
	h := &o.hello
	pattern, ok := noise.ParsePattern(h.Pattern)
	if !ok || len(h.Handshake) != pattern.MessageSize(0) {
		return malformed("pattern or size of message 1", nil)
	}
	o.accepted = ccp.Negotiate(h.Offer(), o.srv.opt.Offer)
	switch {
	case h.Sealed() && !o.accepted.Has(ccp.Sealed):
		return malformed("sealed hello without the capability", nil)
	case h.PQ != nil && !o.accepted.Has(ccp.PQ):
		return malformed("pq key without the capability", nil)
	case pattern == noise.IK && !o.accepted.Has(ccp.ProofBinding):
		return malformed("ik without proof-binding", nil)
	case !o.accepted.Has(o.srv.opt.Min) && !o.facts.Compat:
		return malformed("less than the minimum outside the connect path", nil)
	}
	return nil
}

// answer opens Noise message 1, checks the static proof, and sends message 2. It
// writes nothing anywhere but to the peer.
func (o *opening) answer(ctx context.Context) error {
	err := o.keyWork(ctx, func() error {
		if err := o.openFirst(); err != nil {
			return err
		}
		return o.checkStatic()
	})
	if err != nil {
		return err
	}
	o.stage = stageVerified
	o.session = identity.NewID(o.srv.opt.Rand)
	ext := ccp.Ext{
		Domain: o.srv.opt.Domain, ProtocolVersion: o.version,
		Answer: ccp.NewAnswer(o.digest, o.srv.opt.Offer, o.accepted),
	}
	auth := ccp.ServerAuth{
		Session: o.session, ServerStatic: o.key.Pair.Public[:], ProtocolVersion: o.version,
		SupportedVersions: []uint16{ccp.ProtocolVersion}, PQ: o.kem,
	}
	if !o.hello.Sealed() {
		auth.DeviceID = o.hello.Identity.DeviceID
	}
	if !o.accepted.Has(ccp.ProofBinding) {
		if err := o.preview(ctx, &ext); err != nil {
			return err
		}
	}
	err = o.keyWork(ctx, func() (err error) {
		auth.Handshake, err = o.hs.WriteMessage(nil, ext.Marshal())
		return err
	})
	if err != nil {
		return malformed("message 2", err)
	}
	return o.writeClear(ccp.TypeAuth, o.channel, 1, auth.Marshal())
}

// openFirst tries the server's keys on message 1.
func (o *opening) openFirst() error {
	h := &o.hello
	pattern, _ := noise.ParsePattern(h.Pattern)
	keys := o.srv.opt.Keys()
	if h.KeyVersion != 0 {
		keys = slices.DeleteFunc(slices.Clone(keys), func(k ServerKey) bool { return k.Version != h.KeyVersion })
	}
	for _, k := range keys[:min(len(keys), maxKeys)] {
		hs, err := noise.NewHandshake(noise.Config{
			Pattern: pattern, Prologue: o.srv.opt.Prologue, Static: k.Pair, PQ: h.PQ != nil, Random: o.srv.opt.Rand,
		})
		if err != nil {
			return malformed("noise", err)
		}
		if _, err := hs.ReadMessage(nil, h.Handshake); err != nil {
			continue
		}
		o.hs, o.key = hs, k
		return o.encapsulate()
	}
	return refused(ccp.CodeHandshake, "no key opens message 1", nil)
}

// encapsulate answers the client's ML-KEM key, once message 1 has opened.
func (o *opening) encapsulate() error {
	if o.hello.PQ == nil {
		return nil
	}
	ct, psk, err := noise.PQServer(o.hello.PQ, o.srv.opt.Rand)
	if err != nil {
		return malformed("pq", err)
	}
	o.kem = ct
	if err := o.hs.SetPSK(psk); err != nil {
		return malformed("psk", err)
	}
	return nil
}

// checkStatic checks what a Hello that names its sender proves.
func (o *opening) checkStatic() error {
	id := o.hello.Identity
	if id == nil {
		return nil
	}
	if o.hello.Pattern == ccp.PatternIK && o.hs.PeerStatic() != id.ClientStatic {
		return refused(ccp.CodeHandshake, "client_static is not the noise key", nil)
	}
	p := identity.Proof{Commitment: o.hello.Proof.Commitment, Response: o.hello.Proof.Response}
	if err := identity.VerifyStatic(id.DevicePublic, o.srv.opt.Domain, id.DeviceID, id.ClientStatic, p); err != nil {
		return refused(ccp.CodeHandshake, "static proof", err)
	}
	return nil
}

// finish reads the client's last handshake message (XK) and splits the state.
func (o *opening) finish(ctx context.Context) error {
	if o.hello.Pattern == ccp.PatternXK {
		f, err := o.frame(ccp.TypeAuth)
		if err != nil {
			return err
		}
		o.srv.count(metrics.FramesIngress, 1)
		auth, err := ccp.ParseClientAuth(f.Payload)
		if err != nil {
			return malformed("auth", err)
		}
		if len(auth.Handshake) != noise.XK.MessageSize(2) {
			return malformed("size of message 3", nil)
		}
		err = o.keyWork(ctx, func() error {
			_, err := o.hs.ReadMessage(nil, auth.Handshake)
			return err
		})
		if err != nil {
			return refused(ccp.CodeHandshake, "message 3", err)
		}
		if id := o.hello.Identity; id != nil && o.hs.PeerStatic() != id.ClientStatic {
			return refused(ccp.CodeHandshake, "client_static is not the noise key", nil)
		}
	}
	send, recv, err := o.hs.Split()
	if err != nil {
		return malformed("split", err)
	}
	if !o.accepted.Has(ccp.Records) {
		send.WithoutRekey()
		recv.WithoutRekey()
	}
	o.send, o.recv = noise.NewSealer(send), noise.NewOpener(recv)
	o.srv.count(metrics.SecurityNoise, 1)
	if o.accepted.Has(ccp.PQ) {
		o.srv.count(metrics.SecurityPQ, 1)
	}
	return nil
}

// request is what the account store is asked, from what the peer says of itself.
func (o *opening) request(id *ccp.Identity) (account.Request, error) {
	r := account.Request{
		Device: id.DeviceID, Public: id.DevicePublic, ClientStatic: id.ClientStatic,
		Capabilities: o.accepted, Session: o.session,
	}
	if u := id.User; u != nil {
		r.User = account.Hint{ID: u.ID, Handle: u.Handle, DisplayName: u.DisplayName, AvatarURL: u.AvatarURL}
	}
	if id.Certificate != nil {
		c, err := identity.ParseCertificate(id.Certificate)
		if err != nil {
			return r, refused(ccp.CodeCertificateInvalid, "malformed", err)
		}
		r.Certificate = &c
	}
	return r, nil
}
