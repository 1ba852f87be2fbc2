package account

import (
	"context"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
)

// register decides whether an unknown device without code or certificate may make
// a new account, and plans it. Whether a handle exists is told only to who has a
// valid invitation, or where registration is open to all.
func (s *Store) register(ctx context.Context, p *plan, r *Request, now time.Time) (held[userRecord], string, error) {
	none := held[userRecord]{}
	if r.User.Handle == "" && r.Invite == nil {
		return none, "", refusePairing(ccp.CodeUnknownDevice, "unknown device that names no handle")
	}
	via, err := s.admit(ctx, p, r)
	if err != nil {
		return none, "", err
	}
	if r.User.ID != "" {
		return none, "", refusePairing(ccp.CodeUnknownDevice, "unknown device that names a user")
	}
	if err := CheckHandle(r.User.Handle); err != nil {
		return none, "", err
	}
	handle, err := s.byHandle(ctx, r.User.Handle)
	if err != nil {
		return none, "", err
	}
	if handle.exists() {
		return none, "", refusePairing(ccp.CodeHandleTaken, "handle or a near-duplicate exists")
	}
	// The handle must not be the id of a device or user either: one name space.
	taken := []storage.Write{}
	for _, kind := range []string{kindDevice, kindUser} {
		if kind == kindDevice && r.User.Handle == r.Device {
			continue
		}
		h, err := load[struct{}](ctx, s, kind, r.User.Handle)
		if err != nil {
			return none, "", err
		}
		if h.exists() {
			return none, "", refusePairing(ccp.CodeHandleTaken, "handle is an id")
		}
		taken = append(taken, h.check())
	}
	id := r.NewUser
	if id == "" {
		id = identity.NewID(s.opt.Rand)
		r.NewUser = id
	}
	user := held[userRecord]{key: storage.Key{Kind: kindUser, ID: id}, value: userRecord{
		Handle:  r.User.Handle,
		Display: cleanText(r.User.DisplayName, MaxDisplayName),
		Avatar:  cleanURL(r.User.AvatarURL),
		Created: now.UnixMicro(), Devices: []string{r.Device},
	}}
	handle.value = handleRecord{User: id, Handle: r.User.Handle}
	p.writes = append(p.writes, user.write(time.Time{}), handle.write(time.Time{}))
	p.writes = append(p.writes, taken...)
	p.grant.NewUser = true
	return user, via, nil
}

// admit judges the right to register at all, and plans the spending of the
// invitation. Unknown, spent and expired invitations are one code.
func (s *Store) admit(ctx context.Context, p *plan, r *Request) (via string, err error) {
	mode := s.Registration()
	if mode == Closed {
		return "", refusePairing(ccp.CodeInviteInvalid, "registration is closed")
	}
	if r.Invite == nil {
		if mode != Open {
			return "", refusePairing(ccp.CodeInviteInvalid, "no invitation")
		}
		return ViaOpen, nil
	}
	inv, err := loadExpiring[inviteRecord](ctx, s, kindInvite, InviteID(r.Invite))
	if err != nil {
		return "", err
	}
	if !inv.exists() || inv.value.Used >= inv.value.Quota {
		return "", refuse(ccp.CodeInviteInvalid, "invitation unknown, spent or expired")
	}
	inv.value.Used++
	p.writes = append(p.writes, inv.write(inv.expires))
	return ViaInvite, nil
}

// CreateUser makes an account without a device, for the operator; a pairing code
// made with issuer "" adds the first one.
func (s *Store) CreateUser(ctx context.Context, h Hint) (User, error) {
	if err := CheckHandle(h.Handle); err != nil {
		return User{}, err
	}
	now := s.now()
	id := h.ID
	if id == "" {
		id = identity.NewID(s.opt.Rand)
	}
	if len(id) > 255 {
		return User{}, invalid("user id longer than 255 bytes")
	}
	u := held[userRecord]{key: storage.Key{Kind: kindUser, ID: id}, value: userRecord{
		Handle: h.Handle, Display: cleanText(h.DisplayName, MaxDisplayName), Avatar: cleanURL(h.AvatarURL), Created: now.UnixMicro(),
	}}
	err := s.dir.Commit(ctx, now, []storage.Write{
		u.write(time.Time{}),
		{Key: storage.Key{Kind: kindHandle, ID: Fold(h.Handle)}, Expect: 0, Value: encode(handleRecord{id, h.Handle})},
		{Key: storage.Key{Kind: kindDevice, ID: h.Handle}, Expect: 0, CheckOnly: true},
		{Key: storage.Key{Kind: kindDevice, ID: id}, Expect: 0, CheckOnly: true},
	})
	if isConflict(err) {
		return User{}, refuse(ccp.CodeHandleTaken, "handle or id exists")
	}
	return u.value.user(id), err
}
