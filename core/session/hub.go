package session

import (
	"context"

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
