package account

import (
	"context"
	"slices"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
)

// skew is how far in the future a certificate may have been issued.
const skew = 5 * time.Minute

// certify issues a certificate for the record and puts it there.
func (s *Store) certify(id string, d *deviceRecord, now time.Time) (identity.Certificate, error) {
	c, err := s.opt.CA().Issue(d.User, id, d.Public.key(), now, s.opt.CertificateValidity, s.opt.Rand)
	if err != nil {
		return c, err
	}
	raw, err := c.MarshalJSON()
	if err != nil {
		return c, err
	}
	d.Cert = raw
	return c, nil
}

// due tells whether a stored certificate should be replaced: less than a third
// of its validity is left, or the CA or the key changed.
func (s *Store) due(c identity.Certificate, public [32]byte, now time.Time) bool {
	if c.Serial == 0 || c.Issuer != s.opt.CA().Public() || c.PublicKey != public {
		return true
	}
	left := c.ExpiresAt - now.Unix()
	return left < (c.ExpiresAt-c.IssuedAt)/3
}

// lapsed tells whether a certificate ended so long ago that only pairing helps.
func (s *Store) lapsed(c identity.Certificate, now time.Time) bool {
	return c.Serial != 0 && now.Unix() >= c.ExpiresAt+int64(s.opt.CertificateGrace/time.Second)
}

// judge checks a certificate that a device presented against what the device
// proved. known is the stored device, active and with this key, or nil: if it is
// known, an earlier CA's certificate counts, an expired one during the grace, and one
// that equals the stored one needs no second look at its signature. A certificate for
// the Noise static key (old clients) is accepted. Whether the device gets another one
// is for the stored certificate to say (due), however often an old one is presented.
func (s *Store) judge(c *identity.Certificate, r *Request, user string, known *Device, now time.Time) error {
	bad := func(text string) error { return refuse(ccp.CodeCertificateInvalid, text) }
	if c.Issuer != s.opt.CA().Public() &&
		(known == nil || s.opt.TrustedCAs == nil || !slices.Contains(s.opt.TrustedCAs(), c.Issuer)) {
		return bad("unknown issuer")
	}
	if c.DeviceID != r.Device || c.UserID != user {
		return bad("made for another device or user")
	}
	if c.PublicKey != r.Public && c.PublicKey != r.ClientStatic {
		return bad("made for another key")
	}
	// The stored one is ours, whatever the clock was of the node that made it.
	stored := known != nil && *c == known.Certificate
	if c.IssuedAt >= c.ExpiresAt || !stored && c.IssuedAt > now.Add(skew).Unix() {
		return bad("dates contradict")
	}
	if c.ExpiresAt <= now.Unix() && (known == nil || s.lapsed(*c, now)) {
		return refusePairing(ccp.CodeCertificateInvalid, "expired")
	}
	if !stored && c.Verify(c.Issuer) != nil {
		return bad("signature")
	}
	return nil
}

// RenewCertificate replaces the certificate of an active device if it is due;
// renewed is false if it is not.
func (s *Store) RenewCertificate(ctx context.Context, device string) (c identity.Certificate, renewed bool, err error) {
	defer s.cache.drop(device)
	for try := 0; ; try++ {
		h, err := load[deviceRecord](ctx, s, kindDevice, device)
		if err != nil {
			return c, false, err
		}
		if !h.exists() {
			return c, false, ErrNotFound
		}
		if h.value.Status != Active {
			return c, false, ErrRevoked
		}
		d, err := h.value.device(device)
		if err != nil {
			return c, false, err
		}
		now := s.now()
		if !s.due(d.Certificate, d.Public, now) {
			return d.Certificate, false, nil
		}
		if c, err = s.certify(device, &h.value, now); err != nil {
			return c, false, err
		}
		err = s.dir.Commit(ctx, now, []storage.Write{
			h.write(time.Time{}),
			s.event(device, eventRecord{Action: "certificate", Public: h.value.Public, Serial: c.Serial}, now),
		})
		if err == nil {
			return c, true, nil
		}
		if !isConflict(err) || try == commitTries {
			return c, false, err
		}
	}
}

// CertificateDue is when a device's certificate should be renewed.
func CertificateDue(c identity.Certificate) time.Time {
	return time.Unix(c.ExpiresAt-(c.ExpiresAt-c.IssuedAt)/3+1, 0)
}
