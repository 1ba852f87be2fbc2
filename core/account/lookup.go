package account

import (
	"context"
	"slices"

	"github.com/commucat/commucat/sdk/storage"
)

// Device answers a device by id, also a revoked one. Answers come from a bounded
// cache that this Store's own writes invalidate.
func (s *Store) Device(ctx context.Context, id string) (Device, error) {
	now := s.now()
	if d, ok := s.cache.get(id, now); ok {
		return d, nil
	}
	gen := s.cache.generation()
	h, err := load[deviceRecord](ctx, s, kindDevice, id)
	if err != nil {
		return Device{}, err
	}
	if !h.exists() {
		return Device{}, ErrNotFound
	}
	d, err := h.value.device(id)
	if err != nil {
		return Device{}, err
	}
	s.cache.put(d, gen, now)
	return d, nil
}

// Devices lists an account's devices, oldest first, revoked ones included (of
// those the 48 that came last at least).
func (s *Store) Devices(ctx context.Context, user string) ([]Device, error) {
	u, err := load[userRecord](ctx, s, kindUser, user)
	if err != nil {
		return nil, err
	}
	if !u.exists() {
		return nil, ErrNotFound
	}
	held, err := s.loadDevices(ctx, u.value.Devices)
	if err != nil {
		return nil, err
	}
	out := make([]Device, 0, len(held))
	for _, h := range held {
		if h.value.User != user {
			continue
		}
		d, err := h.value.device(h.key.ID)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	slices.SortStableFunc(out, func(a, b Device) int { return a.Created.Compare(b.Created) })
	return out, nil
}

// loadDevices reads device records in one call; absent ones are left out.
func (s *Store) loadDevices(ctx context.Context, ids []string) ([]held[deviceRecord], error) {
	if len(ids) == 0 {
		return nil, nil
	}
	keys := make([]storage.Key, len(ids))
	for i, id := range ids {
		keys[i] = storage.Key{Kind: kindDevice, ID: id}
	}
	recs, err := s.get(ctx, keys...)
	if err != nil {
		return nil, err
	}
	out := make([]held[deviceRecord], 0, len(recs))
	for i, r := range recs {
		h, err := decode[deviceRecord](r, keys[i])
		if err != nil {
			return nil, err
		}
		if h.exists() {
			out = append(out, h)
		}
	}
	return out, nil
}

// User answers an account by id.
func (s *Store) User(ctx context.Context, id string) (User, error) {
	h, err := load[userRecord](ctx, s, kindUser, id)
	if err != nil {
		return User{}, err
	}
	if !h.exists() {
		return User{}, ErrNotFound
	}
	return h.value.user(id), nil
}

// UserByHandle answers an account by its exact handle.
func (s *Store) UserByHandle(ctx context.Context, handle string) (User, error) {
	h, err := s.byHandle(ctx, handle)
	if err != nil {
		return User{}, err
	}
	if !h.exists() || h.value.Handle != handle {
		return User{}, ErrNotFound
	}
	return s.User(ctx, h.value.User)
}

func (s *Store) byHandle(ctx context.Context, handle string) (held[handleRecord], error) {
	return load[handleRecord](ctx, s, kindHandle, Fold(handle))
}

// Resolve turns a name into devices that can be written to: a device id, a user
// id or a handle, tried in this order. Revoked devices are never among them;
// ErrNotFound when nothing active bears the name.
func (s *Store) Resolve(ctx context.Context, name string) (devices []Device, user string, err error) {
	d, err := s.Device(ctx, name)
	switch {
	case err == nil && d.Status == Active:
		return []Device{d}, d.User, nil
	case err == nil:
		return nil, "", ErrNotFound
	case !isNotFound(err):
		return nil, "", err
	}
	u, err := s.User(ctx, name)
	if isNotFound(err) {
		u, err = s.UserByHandle(ctx, name)
	}
	if err != nil {
		return nil, "", err
	}
	all, err := s.Devices(ctx, u.ID)
	if err != nil {
		return nil, "", err
	}
	devices = slices.DeleteFunc(all, func(d Device) bool { return d.Status != Active })
	if len(devices) == 0 {
		return nil, "", ErrNotFound
	}
	return devices, u.ID, nil
}

func isNotFound(err error) bool {
	e, ok := err.(*Error)
	return ok && e.Code == ErrNotFound.Code
}

// Users lists accounts in order of their ids, at most limit after the id given.
func (s *Store) Users(ctx context.Context, after string, limit int) ([]User, error) {
	recs, err := s.dir.List(ctx, s.now(), storage.Range{Kind: kindUser, After: after, Limit: limit})
	if err != nil {
		return nil, err
	}
	out := make([]User, 0, len(recs))
	for _, r := range recs {
		h, err := decode[userRecord](r, r.Key)
		if err != nil {
			return nil, err
		}
		out = append(out, h.value.user(r.ID))
	}
	return out, nil
}
