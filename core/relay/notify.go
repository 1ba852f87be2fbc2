package relay

import (
	"context"
	"errors"
	"time"

	"github.com/commucat/commucat/core/call"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// Notify stores a frame of the server itself for a device and delivers it: at
// once if it is connected, else when it comes. It returns once the row is on
// stable storage. The sender's device and user are empty. ErrUnknown: no such
// active device.
func (h *Hub) Notify(ctx context.Context, device string, t ccp.Type, channel uint32, payload []byte) error {
	return h.NotifyOnce(ctx, device, h.serverID(), t, channel, payload)
}

// NotifyOnce is Notify for what may be told again when nobody knows whether it was told:
// the same id is shown once. It takes part in nobody's order.
func (h *Hub) NotifyOnce(ctx context.Context, device string, id ccp.MessageID, t ccp.Type, channel uint32, payload []byte) error {
	d, err := h.accounts.Device(ctx, device)
	if err != nil {
		return err
	}
	if !d.Active {
		return ErrUnknown
	}
	env := h.serverEnvelope(t, channel, payload)
	env.id = id
	done := make(chan error, 1)
	h.launchServer(&env, device, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-h.closed:
		return ErrClosed
	}
}

func (h *Hub) serverEnvelope(t ccp.Type, channel uint32, payload []byte) envelope {
	return envelope{
		kind: t, channel: channel, time: h.now().UnixMilli(), body: append([]byte(nil), payload...),
		id: h.serverID(),
	}
}

func (h *Hub) serverID() ccp.MessageID {
	return ccp.MessageID{Log: h.serverLog, Counter: h.serverSeq.Add(1)}
}

var errNotStored = errors.New("relay: not stored")

// launchServer puts one row that no session waits for into its lane.
func (h *Hub) launchServer(env *envelope, device string, then func(error)) {
	f := newFlight()
	f.env = *env
	f.id = rowID(env.device, env.id)
	f.expires = h.now().Add(h.opt.Limits.RelayTTL)
	f.then = then
	f.left.Store(1)
	f.refs.Store(1)
	lane := h.lane(device)
	lane.put(f, []*recipient{{device: device, lane: lane, records: true}})
}

// endCalls tells the participants of calls that ended by themselves.
func (h *Hub) endCalls(ctx context.Context, ended []call.Ended) {
	for _, e := range ended {
		user := ""
		if d, err := h.accounts.Device(ctx, e.Device); err == nil {
			user = d.User
		}
		for _, p := range e.Participants {
			if p == e.Device {
				continue
			}
			env := h.serverEnvelope(ccp.TypeCallEnd, e.Channel, e.Body)
			env.device, env.user = e.Device, user
			if e.Channel == 0 {
				env.flags = FlagDirect
			}
			h.launchServer(&env, p, nil)
		}
	}
}

// moving is a row on its way behind the others of its queue.
type moving struct {
	device   string
	position uint64
}

// moveBehind appends a row that seems to crash its receiver (see history) anew, and
// deletes it from its old place once that is stored.
func (h *Hub) moveBehind(l *Link, row storage.Envelope, d Delivery) {
	h.log.Warn("row moved behind the others", "device", l.device, "position", row.Position)
	f := newFlight()
	f.env = envelope{
		kind: d.Kind, flags: d.Flags | flagMoved, channel: d.Channel, time: d.Time, id: d.ID,
		device: d.Device, user: d.User, body: d.Body,
	}
	f.id = movedID(row.ID)
	f.expires = row.Expires
	f.moved = &moving{l.device, row.Position}
	f.left.Store(1)
	f.refs.Store(1)
	lane := h.lane(l.device)
	lane.put(f, []*recipient{{device: l.device, lane: lane, records: true}})
}

func (m *moving) done(h *Hub) {
	h.doner.ranges(m.device, m.position, m.position)
	h.metrics.Poisoned()
}

const purgeBatch = 1000

// purge removes expired rows and records, a batch at a time.
func (h *Hub) purge(ctx context.Context) {
	for {
		every := h.opt.Limits.PurgeEvery
		h.sleep(ctx, every/2+time.Duration(h.jitter(uint64(every))))
		for ctx.Err() == nil {
			n, err := h.queues.Purge(ctx, h.now(), purgeBatch)
			h.metrics.Purged(n)
			m, err2 := h.directory.Purge(ctx, h.now(), purgeBatch)
			if err = errors.Join(err, err2); err != nil {
				if ctx.Err() == nil {
					h.log.Warn("purge", "error", err)
				}
				break
			}
			if n < purgeBatch && m < purgeBatch {
				break
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}
