package relay

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// route is whom a message of one device reaches on one channel, or under one
// list of names. It is immutable and remembered until what it rests on changes.
type route struct {
	to         []*recipient // grouped by lane
	refused    []refused
	allRecords bool
	group      string
	deps       []dep
	until      time.Time
}

type dep struct{ slot, gen uint32 }

func (h *Hub) fresh(rt *route, now time.Time) bool {
	for _, d := range rt.deps {
		if h.gens[d.slot].Load() != d.gen {
			return false
		}
	}
	return now.Before(rt.until)
}

// routeFor answers from memory, or asks storage if io allows that.
func (l *Link) routeFor(ctx context.Context, channel uint32, to [][]byte, copies, io bool) (*route, error) {
	k := binary.BigEndian.AppendUint32(l.key[:0], channel)
	if copies {
		k = append(k, 1)
	} else {
		k = append(k, 0)
	}
	for _, name := range to {
		k = append(append(k, byte(len(name))), name...)
	}
	l.key = k
	now := l.h.now()
	if rt := l.routes[string(k)]; rt != nil && l.h.fresh(rt, now) {
		return rt, nil
	}
	if !io {
		return nil, errSlow
	}
	rt, err := l.findRoute(ctx, channel, to, copies, now)
	if err != nil {
		return nil, err
	}
	if l.routes == nil || len(l.routes) >= maxRoutes {
		l.routes = make(map[string]*route)
	}
	l.routes[string(k)] = rt
	return rt, nil
}

func (l *Link) findRoute(ctx context.Context, channel uint32, to [][]byte, copies bool, now time.Time) (*route, error) {
	b := routeBuilder{l: l, seen: map[string]bool{l.device: true}, began: l.h.generations()}
	b.rest(l.h.userSlot(l.user))
	var err error
	if channel == 0 {
		if len(to) == 0 {
			return nil, refuse(ccp.CodeNoChannel, "")
		}
		err = b.direct(ctx, to)
	} else {
		b.rest(l.h.channelSlot(channel))
		err = b.channel(ctx, channel)
	}
	if err == nil && copies {
		err = b.copies(ctx)
	}
	if err != nil {
		return nil, err
	}
	return b.finish(now), nil
}

type routeBuilder struct {
	l    *Link
	rt   route
	seen map[string]bool
	// began is from before anything was read: on whom the route rests is known only
	// afterwards, and may have changed since.
	began *generations
}

// rest notes that the route is stale when the slot's generation changes, or has changed
// since the builder began.
func (b *routeBuilder) rest(slot uint32) {
	for _, d := range b.rt.deps {
		if d.slot == slot {
			return
		}
	}
	b.rt.deps = append(b.rt.deps, dep{slot, b.began[slot]})
}

func (b *routeBuilder) add(d Device, isCopy bool) {
	if b.seen[d.ID] {
		return
	}
	b.seen[d.ID] = true
	b.rt.to = append(b.rt.to, &recipient{
		device: d.ID, lane: b.l.h.lane(d.ID), own: d.User == b.l.user, copy: isCopy,
		records: d.Capabilities.Has(ccp.Records), ack: d.Capabilities.Has(ccp.Ack),
	})
}

func (b *routeBuilder) refuse(name, code string) {
	b.rt.refused = append(b.rt.refused, refused{name, code})
	b.l.h.metrics.Refused(code)
}

// direct resolves the names of a Send on channel 0 under the contact policy.
// Unknown, refused and over the rate look the same.
func (b *routeBuilder) direct(ctx context.Context, to [][]byte) error {
	h := b.l.h
	for _, raw := range to {
		name := string(raw)
		devices, user, err := h.accounts.Resolve(ctx, name)
		switch {
		case errors.Is(err, ErrUnknown):
			h.contacts.unknown(ctx, b.l.user)
			b.rest(h.userSlot(name)) // touched when a device of this name comes
			b.refuse(name, ccp.CodeUnreachable)
			continue
		case err != nil:
			return err
		}
		b.rest(h.userSlot(user))
		active := slices.ContainsFunc(devices, func(d Device) bool { return d.Active })
		ok, err := h.contacts.allowed(ctx, b.l.user, user, active)
		if err != nil {
			return err
		}
		if !ok {
			b.refuse(name, ccp.CodeUnreachable)
			continue
		}
		if !active {
			b.refuse(name, ccp.CodeGone)
		}
		for _, d := range devices {
			if d.Active {
				b.add(d, false)
			}
		}
	}
	if len(b.rt.to) == 0 && len(b.rt.refused) > 0 {
		return refuse(b.rt.refused[0].code, "")
	}
	return nil
}

// devices adds the members of a channel that the sender may reach.
func (b *routeBuilder) devices(ctx context.Context, ids []string, policy bool) error {
	h := b.l.h
	for _, id := range ids {
		if id == b.l.device {
			continue
		}
		d, err := h.accounts.Device(ctx, id)
		if errors.Is(err, ErrUnknown) {
			b.rest(h.userSlot(id))
			b.refuse(id, ccp.CodeGone)
			continue
		}
		if err != nil {
			return err
		}
		b.rest(h.userSlot(d.User))
		if !d.Active {
			b.refuse(id, ccp.CodeGone)
			continue
		}
		if policy {
			ok, err := h.contacts.allowed(ctx, b.l.user, d.User, true)
			if err != nil {
				return err
			}
			if !ok {
				b.refuse(id, ccp.CodeUnreachable)
				continue
			}
		}
		b.add(d, false)
	}
	return nil
}

// copies adds the sender's other devices that know what an own copy is.
func (b *routeBuilder) copies(ctx context.Context) error {
	devices, err := b.l.h.accounts.Devices(ctx, b.l.user)
	if err != nil && !errors.Is(err, ErrUnknown) {
		return err
	}
	for _, d := range devices {
		if d.Active && d.Capabilities.Has(ccp.Ack) {
			b.add(d, true)
		}
	}
	return nil
}

func (b *routeBuilder) finish(now time.Time) *route {
	rt := b.rt
	rt.until = now.Add(b.l.h.opt.Limits.RouteLife)
	rt.allRecords = true
	index := func(l *lane) int { return slices.Index(b.l.h.lanes, l) }
	for _, r := range rt.to {
		rt.allRecords = rt.allRecords && r.records
	}
	slices.SortStableFunc(rt.to, func(a, b *recipient) int { return cmp.Compare(index(a.lane), index(b.lane)) })
	return &rt
}
