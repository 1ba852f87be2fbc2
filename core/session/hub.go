package session

import (
	"context"
	"errors"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/relay"
)

// Hub makes a relay.Hub usable as Options.Relay.
func Hub(h *relay.Hub) Relay { return hub{h} }

type hub struct{ h *relay.Hub }

// Attach implements Relay.
func (h hub) Attach(ctx context.Context, box relay.Outbox, cursor uint64) (Link, error) {
	l, err := h.h.Attach(ctx, box, cursor)
	if err != nil {
		return nil, err // not a nil *relay.Link in a Link
	}
	return l, nil
}

// Accounts makes an account.Store usable as the relay's view of accounts.
func Accounts(s *account.Store) relay.Accounts { return accounts{s} }

type accounts struct{ s *account.Store }

func (a accounts) Device(ctx context.Context, id string) (relay.Device, error) {
	d, err := a.s.Device(ctx, id)
	return relayDevice(d), relayError(err)
}

func (a accounts) Devices(ctx context.Context, user string) ([]relay.Device, error) {
	all, err := a.s.Devices(ctx, user)
	return relayDevices(all), relayError(err)
}

func (a accounts) Resolve(ctx context.Context, name string) ([]relay.Device, string, error) {
	all, user, err := a.s.Resolve(ctx, name)
	return relayDevices(all), user, relayError(err)
}

func relayDevice(d account.Device) relay.Device {
	return relay.Device{ID: d.ID, User: d.User, Active: d.Status == account.Active, Capabilities: d.Capabilities}
}

// relayDevices keeps the active ones.
func relayDevices(all []account.Device) []relay.Device {
	out := make([]relay.Device, 0, len(all))
	for _, d := range all {
		if d.Status == account.Active {
			out = append(out, relayDevice(d))
		}
	}
	return out
}

func relayError(err error) error {
	if errors.Is(err, account.ErrNotFound) {
		return relay.ErrUnknown
	}
	return err
}
