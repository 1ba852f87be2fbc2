package session

import (
	"context"
	"errors"
	"slices"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/noise"
)

// confirm reads and judges the Confirm record, and establishes the session.
func (o *opening) confirm(ctx context.Context) (*Session, error) {
	payload, err := o.readConfirm()
	if err != nil {
		return nil, err
	}
	o.stage = stageRecords
	o.srv.count(metrics.FramesIngress, 1)
	conf, err := ccp.ParseConfirm(payload)
	if err != nil {
		return nil, malformed("confirm", err)
	}
	id, err := o.sender(&conf)
	if err != nil {
		return nil, err
	}
	req, err := o.request(id)
	if err != nil {
		return nil, err
	}
	err = o.keyWork(ctx, func() error {
		return identity.VerifyConfirm(id.DevicePublic, o.srv.opt.Domain, id.DeviceID, id.ClientStatic, o.hs.Hash(), conf.Proof[:])
	})
	var busy *refusal
	switch {
	case errors.As(err, &busy):
		busy.code = ccp.CodeUnavailable
		return nil, err
	case err != nil:
		return nil, refused(ccp.CodeProofInvalid, "proof", err)
	}
	if err := o.rights(ctx, &conf, &req); err != nil {
		return nil, err
	}
	req.Keys = o.keys(&conf)
	former, err := o.resume(ctx, &conf, id.DeviceID)
	if err != nil {
		return nil, err
	}
	if former != nil {
		req.Session = former.Session
		keep := account.HashToken(former.bearer)
		req.Keep = &keep
	}
	return o.establish(ctx, &conf, req, former)
}

// readConfirm reads records until one frame is whole. Nothing but Auth on channel
// 0 within 32 KiB may come first; a record that does not open ends the connection
// without a word, because nobody has proved anything yet.
func (o *opening) readConfirm() ([]byte, error) {
	var plain []byte
	for {
		if size, err := ccp.Size(plain); err == nil && size > ccp.MaxConfirm+ccp.MaxHeader {
			return nil, &refusal{reason: "malformed", detail: "confirm over its limit"}
		}
		f, n, err := ccp.Decode(plain)
		if err == nil {
			if f.Type != ccp.TypeAuth || f.Channel != 0 {
				return nil, &refusal{reason: "malformed", detail: "first record is no confirm"}
			}
			o.plain = plain[n:]
			return f.Payload, nil
		}
		if !errors.Is(err, ccp.ErrIncomplete) {
			return nil, &refusal{reason: "malformed", detail: "confirm", err: err}
		}
		out, n, err := o.recv.Next(o.buf[o.off:])
		if err == nil {
			o.off += n
			plain = append(plain, out...)
			continue
		}
		if !errors.Is(err, noise.ErrIncomplete) {
			return nil, &refusal{reason: "malformed", detail: "record before confirm", err: err}
		}
		if err := o.fill(); err != nil {
			return nil, err
		}
	}
}

// sender is who the Confirm speaks for: what it names, with sealed, or else what
// the Hello named. Naming both, and differently, is misbinding.
func (o *opening) sender(conf *ccp.Confirm) (*ccp.Identity, error) {
	id := o.hello.Identity
	if o.accepted.Has(ccp.Sealed) {
		id = conf.Identity
		if id == nil {
			return nil, malformed("sealed confirm without identity", nil)
		}
	} else if c := conf.Identity; c != nil && (c.DeviceID != id.DeviceID || c.DevicePublic != id.DevicePublic || c.ClientStatic != id.ClientStatic) {
		return nil, refused(ccp.CodeProofInvalid, "confirm names another device than hello", nil)
	}
	if id.ClientStatic != o.hs.PeerStatic() {
		return nil, refused(ccp.CodeProofInvalid, "client_static is not the noise key", nil)
	}
	return id, nil
}

// rights adds invitation and pairing code to the request.
func (o *opening) rights(ctx context.Context, conf *ccp.Confirm, req *account.Request) error {
	if conf.Invite != nil {
		req.Invite = conf.Invite[:]
	}
	if conf.Pair == nil {
		return nil
	}
	req.Name = conf.Pair.Name
	if secret, ok := conf.Pair.Secret(); ok {
		req.Pair = secret[:]
		return nil
	}
	if o.srv.opt.ShortCode == nil {
		return refused(ccp.CodePairingInvalid, "short codes are off", nil)
	}
	secret, err := o.srv.opt.ShortCode(ctx, conf.Pair.Code, o.prefix())
	if err != nil {
		o.paired(err)
		return refused(ccp.CodePairingInvalid, "short code", err)
	}
	req.Pair = secret
	return nil
}

// paired counts a pairing code that was presented.
func (o *opening) paired(err error) {
	m := o.srv.opt.Metrics
	m.Inc(metrics.PairingAttempts)
	if err != nil {
		m.Inc(metrics.PairingFailures)
	}
}

// keys are those of the device's transport keys that this relay has a use for.
func (o *opening) keys(conf *ccp.Confirm) []ccp.TransportKey {
	keyed := o.srv.opt.Keyed
	if keyed == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(conf.Keys), func(k ccp.TransportKey) bool { return !keyed(k.Transport) })
}

// prefix is how the caller's source is counted where guessing must be bounded:
// IPv4 /32, IPv6 /64, a circuit, or else the whole transport.
func (o *opening) prefix() string {
	name := o.facts.Transport
	switch a := o.facts.Remote.Addr(); {
	case o.facts.Circuit != "":
		return name + "/c/" + o.facts.Circuit
	case o.facts.Hidden || !a.IsValid():
		return name
	case a.Is4():
		return name + "/" + a.String()
	default:
		p, err := a.WithZone("").Prefix(64)
		if err != nil {
			return name
		}
		return name + "/" + p.String()
	}
}
