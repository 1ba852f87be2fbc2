package relay

import (
	"context"
	"encoding/hex"
	"io"
	"slices"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

const kindGroup = "group" // GROUP: group

// group is a durable list of members; its channel id lies in every member's own
// table, bound to the group.
type group struct {
	// Channel is 0 for a group that was imported: it takes the channel on which the first
	// of its members takes it up.
	Channel uint32       `json:"channel"`
	Relay   bool         `json:"relay"`
	Members []membership `json:"members"`
}

type membership struct {
	Device string `json:"device"`
	Role   string `json:"role"`
}

func groupKey(id string) storage.Key { return storage.Key{Kind: kindGroup, ID: id} }

func (g *group) find(device string) *membership {
	for i := range g.Members {
		if g.Members[i].Device == device {
			return &g.Members[i]
		}
	}
	return nil
}

func (g *group) devices() []string {
	out := make([]string, len(g.Members))
	for i, m := range g.Members {
		out[i] = m.Device
	}
	return out
}

// group finds the members of a group channel; membership is what counts, and it
// is looked at whenever it has changed.
func (b *routeBuilder) group(ctx context.Context, id string, channel uint32) error {
	var g group
	version, err := b.l.h.get(ctx, groupKey(id), &g)
	if err != nil {
		return err
	}
	if version == 0 || g.Channel != channel || g.find(b.l.device) == nil {
		return refuse(ccp.CodeNotMember, "")
	}
	return b.devices(ctx, g.devices(), false)
}

// handleGroupCreate makes a group with the sender as owner. An id in use is
// refused, unless it is the sender's own group on this channel (W43).
func (l *Link) handleGroupCreate(ctx context.Context, f ccp.Frame) error {
	req, err := ccp.ParseGroupCreate(f.Payload)
	if err != nil {
		return refuse(CodeBadRequest, err.Error())
	}
	h := l.h
	if f.Channel == 0 {
		return refuse(ccp.CodeNoChannel, "channel 0 is for direct messages")
	}
	members := unique(req.Members, l.device)
	if len(members)+1 > h.opt.Limits.Members {
		return refuse(CodeLimit, "too many members")
	}
	if len(req.GroupID) > 255 {
		return refuse(CodeBadRequest, "group_id is too long")
	}
	if req.GroupID == "" {
		var b [32]byte
		if _, err := io.ReadFull(h.opt.Rand, b[:]); err != nil {
			return err
		}
		req.GroupID = hex.EncodeToString(b[:])
	}
	added, _, err := l.reachable(ctx, members)
	if err != nil {
		return err
	}
	if len(added) != len(members) {
		return refuse(ccp.CodeUnreachable, "a member cannot be added")
	}
	again := false
	err = h.transact(ctx, func(c *change) error {
		var old group
		version, err := h.get(ctx, groupKey(req.GroupID), &old)
		if err != nil {
			return err
		}
		if version != 0 {
			m := old.find(l.device)
			if m == nil || m.Role != ccp.RoleOwner || old.Channel != f.Channel && old.Channel != 0 {
				return refuse(CodeGroupExists, "")
			}
			again = true
			if old.Channel == 0 {
				return l.takeUp(ctx, c, f.Channel, req.GroupID, &old, version)
			}
			return nil
		}
		g := group{Channel: f.Channel, Relay: req.Relay, Members: []membership{{l.device, ccp.RoleOwner}}}
		for _, m := range members {
			role := ccp.RoleMember
			if req.Roles[m] == ccp.RoleAdmin {
				role = ccp.RoleAdmin
			}
			g.Members = append(g.Members, membership{m, role})
		}
		c.write(groupKey(req.GroupID), 0, encode(g))
		return l.bind(ctx, c, f.Channel, req.GroupID, g.devices())
	})
	if err != nil {
		return err
	}
	h.touchChannel(f.Channel)
	if again {
		l.reply(f, ccp.Text("group_id", req.GroupID))
		return nil
	}
	return l.relayGroup(ctx, f, fill(f.Payload, ccp.Text("group_id", req.GroupID)), ccp.Text("group_id", req.GroupID))
}

// bind writes the group's entry into the members' tables.
func (l *Link) bind(ctx context.Context, c *change, channel uint32, id string, devices []string) error {
	entries, versions, err := c.load(ctx, channel, devices)
	if err != nil {
		return err
	}
	for _, d := range devices {
		e := entries[d]
		own := &entry{By: l.device, Relay: true, Group: id}
		if e != nil {
			own.By = e.By
		}
		switch {
		case e != nil && e.Group == id:
			continue
		case e != nil && (d != l.device || e.Group != ""):
			// Taken there for others; only its owner gives it up, by Leave.
			return refuse(ccp.CodeChannelTaken, "")
		case !c.room(d, l.device, e, own):
			return refuse(CodeLimit, "a member's channel table is full")
		}
		c.put(d, channel, versions[d], e, own)
	}
	return nil
}

// relayGroup tells the members, then acknowledges.
func (l *Link) relayGroup(ctx context.Context, f ccp.Frame, body []byte, extras ...ccp.Member) error {
	rt, err := l.routeFor(ctx, f.Channel, nil, true, true)
	if err != nil {
		return err
	}
	l.counter++
	m := message{
		kind: f.Type, channel: f.Channel, id: ccp.MessageID{Log: l.ownLog, Counter: l.counter},
		body: body, plain: true, seq: f.Sequence, extras: extras,
	}
	return l.launch(&m, rt, l.h.now())
}

// handleGroupInvite adds a member or changes a role; owners and admins may.
func (l *Link) handleGroupInvite(ctx context.Context, f ccp.Frame) error {
	req, err := ccp.ParseGroupInvite(f.Payload)
	if err != nil {
		return refuse(CodeBadRequest, err.Error())
	}
	h := l.h
	if f.Channel == 0 { // where a group that was imported waits
		return refuse(ccp.CodeNoChannel, "channel 0 is for direct messages")
	}
	channel := f.Channel
	known := false
	err = h.transact(ctx, func(c *change) error {
		var g group
		version, err := h.get(ctx, groupKey(req.GroupID), &g)
		if err != nil {
			return err
		}
		me := g.find(l.device)
		if version == 0 || me == nil {
			return refuse(CodeNoGroup, "")
		}
		if me.Role != ccp.RoleOwner && me.Role != ccp.RoleAdmin {
			return refuse(CodeNotAllowed, "only owner and admins invite")
		}
		if g.Channel != channel {
			return refuse(ccp.CodeNoChannel, "the group lives on another channel")
		}
		if m := g.find(req.Device); m != nil {
			known = true
			if m.Role == ccp.RoleOwner || m.Role == req.Role {
				return nil
			}
			if me.Role != ccp.RoleOwner {
				return refuse(CodeNotAllowed, "only the owner changes roles")
			}
			m.Role = req.Role
			c.write(groupKey(req.GroupID), version, encode(g))
			return nil
		}
		if len(g.Members) >= h.opt.Limits.Members {
			return refuse(CodeLimit, "the group is full")
		}
		ok, _, err := l.reachable(ctx, []string{req.Device})
		if err != nil {
			return err
		}
		if len(ok) == 0 {
			return refuse(ccp.CodeUnreachable, "")
		}
		g.Members = append(g.Members, membership{req.Device, req.Role})
		c.write(groupKey(req.GroupID), version, encode(g))
		return l.bind(ctx, c, channel, req.GroupID, []string{req.Device})
	})
	if err != nil {
		return err
	}
	if !known {
		h.touchChannel(channel)
	}
	return l.relayGroup(ctx, f, canonical(f.Payload), ccp.Text("group_id", req.GroupID), ccp.Text("device", req.Device))
}

// joinGroup takes up a group's channel again; the joiner must be a member.
func (l *Link) joinGroup(ctx context.Context, f ccp.Frame, j ccp.Join) error {
	err := l.h.transact(ctx, func(c *change) error {
		var g group
		version, err := l.h.get(ctx, groupKey(j.GroupID), &g)
		if err != nil {
			return err
		}
		if version == 0 || g.find(l.device) == nil {
			return refuse(ccp.CodeNotMember, "")
		}
		if g.Channel == 0 {
			return l.takeUp(ctx, c, f.Channel, j.GroupID, &g, version)
		}
		if g.Channel != f.Channel {
			return refuse(ccp.CodeNoChannel, "the group lives on another channel")
		}
		return l.bind(ctx, c, f.Channel, j.GroupID, []string{l.device})
	})
	if err != nil {
		return err
	}
	l.h.touchChannel(f.Channel)
	l.reply(f, ccp.Text("group_id", j.GroupID))
	l.announceJoin(ctx, f.Channel, j.Relay)
	return nil
}

// takeUp gives an imported group its channel; the other members' tables get it when
// they join.
func (l *Link) takeUp(ctx context.Context, c *change, channel uint32, id string, g *group, version uint64) error {
	g.Channel = channel
	c.write(groupKey(id), version, encode(g))
	return l.bind(ctx, c, channel, id, []string{l.device})
}

// leaveGroup takes the device out of its group. A group without an owner passes
// to its first admin, else its first member; an empty one ends.
func (l *Link) leaveGroup(ctx context.Context, c *change, id string) error {
	var g group
	version, err := l.h.get(ctx, groupKey(id), &g)
	if err != nil || version == 0 {
		return err
	}
	me := g.find(l.device)
	if me == nil {
		return nil
	}
	wasOwner := me.Role == ccp.RoleOwner
	g.Members = slices.DeleteFunc(g.Members, func(m membership) bool { return m.Device == l.device })
	if len(g.Members) == 0 {
		c.write(groupKey(id), version, nil)
		return nil
	}
	if wasOwner {
		heir := max(slices.IndexFunc(g.Members, func(m membership) bool { return m.Role == ccp.RoleAdmin }), 0)
		g.Members[heir].Role = ccp.RoleOwner
	}
	c.write(groupKey(id), version, encode(g))
	return nil
}

// canonical is the relayed form of a control payload (JSON sorted).
func canonical(b []byte) []byte {
	out, err := ccp.CanonicalJSON(b)
	if err != nil {
		return b // checked before: it is valid
	}
	return out
}

// fill adds keys that a control payload lacks.
func fill(b []byte, add ...ccp.Member) []byte {
	raw, err := ccp.ParseRaw(b)
	if err != nil || !raw.IsObject() {
		return canonical(b)
	}
	members := map[string]ccp.Raw{}
	for _, m := range add {
		members[m.Key] = m.Value
	}
	for k, v := range raw.Members() {
		members[k] = v
	}
	list := make([]ccp.Member, 0, len(members))
	for k, v := range members {
		list = append(list, ccp.Member{Key: k, Value: v})
	}
	return canonical(ccp.AppendObject(nil, list...))
}
