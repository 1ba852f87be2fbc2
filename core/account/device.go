package account

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
)

func hexKey(k [32]byte) string { return hex.EncodeToString(k[:]) }

// RevokeDevice ends a device for ever: its status, its tokens, and through the
// change hooks its live session. user "" skips the check of ownership (operator); a
// device of another account is ErrNotFound, as one that does not exist. A device that is
// revoked already is no error.
func (s *Store) RevokeDevice(ctx context.Context, user, device string) error {
	via := ViaUser
	if user == "" {
		via = ViaOperator
	}
	for try := 0; ; try++ {
		h, err := load[deviceRecord](ctx, s, kindDevice, device)
		switch {
		case err != nil:
			return err
		case !h.exists(), user != "" && h.value.User != user:
			return ErrNotFound
		case h.value.Status == Revoked:
			return nil
		}
		now := s.now()
		h.value.Status = Revoked
		h.value.Epoch++
		gone := h.value.dropKeys()
		c := Change{Kind: DeviceRevoked, User: h.value.User, Device: device, Public: h.value.Public.key(), Via: via, Gone: gone}
		err = s.dir.Commit(ctx, now, []storage.Write{
			h.write(time.Time{}),
			s.event(device, eventRecord{Action: "revoke", Via: via, Public: h.value.Public}, now),
			s.owe(&c, now),
		})
		s.cache.drop(device)
		if err == nil {
			s.tell(c)
			return nil
		}
		if !isConflict(err) || try == commitTries {
			return err
		}
	}
}

// RenameDevice sets a device's name (at most 64 characters).
func (s *Store) RenameDevice(ctx context.Context, user, device, name string) error {
	return s.changeDevice(ctx, device, func(d *deviceRecord) error {
		if d.User != user {
			return ErrNotFound
		}
		d.Name = cleanText(name, MaxDeviceName)
		return nil
	})
}

// Rotated is the result of RotateDevice.
type Rotated struct {
	Device      Device
	Old         [32]byte
	Certificate identity.Certificate
	At          time.Time
}

// RotateDevice replaces a device's key (ccp1.md 2.6): signature is by the old key
// over the rotation's digest. The old key is compared and swapped in the same
// commit; the interval counts rotations only; a key that was rotated away before is
// ErrKeyReused. The device's tokens go on: the holder has proved the old key.
func (s *Store) RotateDevice(ctx context.Context, user string, rot identity.Rotation, signature []byte) (Rotated, error) {
	for try := 0; ; try++ {
		out, writes, err := s.planRotation(ctx, user, rot, signature)
		if err != nil {
			return Rotated{}, err
		}
		c := Change{Kind: DeviceRotated, User: user, Device: rot.DeviceID, Public: rot.NewPublic, Via: ViaRotation}
		err = s.dir.Commit(ctx, s.now(), append(writes, s.owe(&c, out.At)))
		s.cache.drop(rot.DeviceID)
		if err == nil {
			s.tell(c)
			return out, nil
		}
		if !isConflict(err) || try == commitTries {
			return Rotated{}, err
		}
	}
}

func (s *Store) planRotation(ctx context.Context, user string, rot identity.Rotation, signature []byte) (Rotated, []storage.Write, error) {
	now := s.now()
	end := time.Unix(rot.ExpiresAt, 0)
	if !end.After(now) || end.After(now.Add(s.opt.RotationProof)) {
		return Rotated{}, nil, ErrProofTime
	}
	h, err := load[deviceRecord](ctx, s, kindDevice, rot.DeviceID)
	if err != nil {
		return Rotated{}, nil, err
	}
	rec := h.value
	switch {
	case !h.exists(), rec.User != user:
		return Rotated{}, nil, ErrNotFound
	case rec.Status != Active:
		return Rotated{}, nil, ErrRevoked
	case bytes.Equal(rec.Public, rot.NewPublic[:]):
		return Rotated{}, nil, ErrUnchanged
	case rec.Rotated != 0 && now.Sub(fromMicro(rec.Rotated)) < s.opt.RotationInterval:
		return Rotated{}, nil, ErrTooSoon
	}
	old := rec.Public.key()
	if err := rot.Verify(old, signature); err != nil {
		return Rotated{}, nil, ErrProof
	}
	epoch := rec.Epoch
	p := &plan{}
	if err := s.retire(ctx, p, &rec, rot.NewPublic, now); err != nil {
		var e *Error
		if errors.As(err, &e) {
			err = ErrKeyReused
		}
		return Rotated{}, nil, err
	}
	rec.Epoch = epoch
	cert, err := s.certify(rot.DeviceID, &rec, now)
	if err != nil {
		return Rotated{}, nil, err
	}
	device, err := rec.device(rot.DeviceID)
	if err != nil {
		return Rotated{}, nil, err
	}
	h.value = rec
	writes := append(p.writes, h.write(time.Time{}),
		s.event(rot.DeviceID, eventRecord{Action: "rotate", Via: ViaRotation, Public: rec.Public, Serial: cert.Serial}, now))
	return Rotated{Device: device, Old: old, Certificate: cert, At: now}, writes, nil
}

// KeyEvent is one entry of a device's history.
type KeyEvent struct {
	Action, Via string
	Public      [32]byte
	Serial      uint64
	At          time.Time
}

// KeyEvents lists what happened to a device's key in the last 400 days, oldest
// first, at most 1 000.
func (s *Store) KeyEvents(ctx context.Context, device string) ([]KeyEvent, error) {
	recs, err := s.dir.List(ctx, s.now(), storage.Range{Kind: kindEvent, Prefix: device + "/", Limit: 1000})
	if err != nil {
		return nil, err
	}
	out := make([]KeyEvent, 0, len(recs))
	for _, r := range recs {
		h, err := decode[eventRecord](r, r.Key)
		if err != nil {
			return nil, err
		}
		out = append(out, KeyEvent{h.value.Action, h.value.Via, h.value.Public.key(), h.value.Serial, fromMicro(h.value.At)})
	}
	return out, nil
}
