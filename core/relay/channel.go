package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// Records of the directory. A device's channel table is its own: one record per
// entry, and one that counts them.
const (
	kindChannel = "channel"      // DEVICE/xxxxxxxx: entry
	kindTable   = "channels"     // DEVICE: table
	kindOpen    = "open-channel" // xxxxxxxx: open
	conflicts   = 8              // attempts of one Commit
)

// entry is what a device's table says of one channel id.
type entry struct {
	// Peers are the devices whose frames reach this one here, and whom its own
	// frames are for.
	Peers []string `json:"peers,omitempty"`
	// By is the device that added the entry.
	By    string `json:"by"`
	Relay bool   `json:"relay,omitempty"`
	Group string `json:"group,omitempty"`
	// Counts is the weight that the table counts it with, where that is more than 1.
	Counts int `json:"counts,omitempty"`
}

// entryBytes is what an entry takes in its table for each that it counts as: a table that
// is bounded in entries is bounded in bytes.
const entryBytes = 1 << 10

// weight is how many entries this one counts as; nil is none.
func (e *entry) weight() int {
	if e == nil {
		return 0
	}
	bare := *e
	bare.Counts = 0
	return 1 + len(encode(bare))/entryBytes
}

// counted is the weight that a stored entry is counted with; nil is none.
func (e *entry) counted() int {
	if e == nil {
		return 0
	}
	return max(1, e.Counts)
}

// table counts a device's entries by their weight, and those that other devices added.
type table struct {
	N  int            `json:"n"`
	By map[string]int `json:"by,omitempty"`
}

type open struct {
	Members []string `json:"members"`
}

func entryKey(device string, channel uint32) storage.Key {
	return storage.Key{Kind: kindChannel, ID: fmt.Sprintf("%s/%08x", device, channel)}
}

func tableKey(device string) storage.Key { return storage.Key{Kind: kindTable, ID: device} }

func openKey(channel uint32) storage.Key {
	return storage.Key{Kind: kindOpen, ID: fmt.Sprintf("%08x", channel)}
}

// records reads records, one for each key whatever the storage answers.
func (h *Hub) records(ctx context.Context, keys ...storage.Key) ([]storage.Record, error) {
	recs, err := h.directory.Get(ctx, h.now(), keys)
	if err == nil && len(recs) != len(keys) {
		err = fmt.Errorf("relay: the storage gave %d answers for %d keys", len(recs), len(keys))
	}
	return recs, err
}

// get reads one record into v and gives its version; 0: absent.
func (h *Hub) get(ctx context.Context, k storage.Key, v any) (uint64, error) {
	recs, err := h.records(ctx, k)
	if err != nil {
		return 0, err
	}
	return decode(recs[0], v)
}

func decode(r storage.Record, v any) (uint64, error) {
	if r.Version == 0 {
		return 0, nil
	}
	if err := json.Unmarshal(r.Value, v); err != nil {
		return 0, fmt.Errorf("relay: record %s: %w", r.Kind, err)
	}
	return r.Version, nil
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only types of this package, which always marshal
	}
	return b
}

// change is one Commit in the making: the tables it touches and its writes.
type change struct {
	h      *Hub
	writes []storage.Write
	tables map[string]*tableChange
}

type tableChange struct {
	version uint64
	table
}

func (h *Hub) newChange() *change { return &change{h: h, tables: map[string]*tableChange{}} }

// load reads the entries of devices for one channel, and their tables.
func (c *change) load(ctx context.Context, channel uint32, devices []string) (map[string]*entry, map[string]uint64, error) {
	keys := make([]storage.Key, 0, 2*len(devices))
	for _, d := range devices {
		keys = append(keys, entryKey(d, channel), tableKey(d))
	}
	recs, err := c.h.records(ctx, keys...)
	if err != nil {
		return nil, nil, err
	}
	entries, versions := map[string]*entry{}, map[string]uint64{}
	for i, d := range devices {
		e := new(entry)
		if versions[d], err = decode(recs[2*i], e); err != nil {
			return nil, nil, err
		}
		if versions[d] != 0 {
			entries[d] = e
		}
		t := new(tableChange)
		if t.version, err = decode(recs[2*i+1], &t.table); err != nil {
			return nil, nil, err
		}
		c.tables[d] = t
	}
	return entries, versions, nil
}

func (c *change) write(k storage.Key, expect uint64, value []byte) {
	c.writes = append(c.writes, storage.Write{Key: k, Expect: expect, Value: value})
}

// room says whether a device's table takes the entry of a joiner in place of old, which
// may be nil.
func (c *change) room(device, joiner string, old, e *entry) bool {
	t, lim := c.tables[device], &c.h.opt.Limits
	more := e.weight() - old.counted()
	return more <= 0 || t.N+more <= lim.Channels && (device == joiner || t.By[joiner]+more <= lim.ChannelsByJoiner)
}

// put sets an entry in place of old, which may be nil. By stays with the entry.
func (c *change) put(device string, channel uint32, version uint64, old, e *entry) {
	stored, w := *e, e.weight()
	if stored.Counts = 0; w > 1 {
		stored.Counts = w
	}
	c.write(entryKey(device, channel), version, encode(stored))
	c.count(device, e.By, w-old.counted())
}

// drop deletes an entry.
func (c *change) drop(device string, channel uint32, version uint64, e *entry) {
	c.write(entryKey(device, channel), version, nil)
	c.count(device, e.By, -e.counted())
}

// count changes what a device's table holds, of entries that by added.
func (c *change) count(device, by string, more int) {
	if more == 0 {
		return
	}
	t := c.tables[device]
	t.N = max(t.N+more, 0)
	if by != device {
		if t.By == nil {
			t.By = map[string]int{}
		}
		if t.By[by] += more; t.By[by] <= 0 {
			delete(t.By, by)
		}
	}
	c.write(tableKey(device), t.version, encode(t.table))
}

// transact repeats f while others change the same records.
func (h *Hub) transact(ctx context.Context, f func(c *change) error) error {
	for i := 0; ; i++ {
		c := h.newChange()
		if err := f(c); err != nil {
			return err
		}
		if len(c.writes) == 0 {
			return nil
		}
		err := h.directory.Commit(ctx, h.now(), c.writes)
		var conflict *storage.ConflictError
		if err == nil || !errors.As(err, &conflict) || i == conflicts {
			return err
		}
	}
}

// channel finds whom the sender reaches on a channel.
func (b *routeBuilder) channel(ctx context.Context, channel uint32) error {
	h, self := b.l.h, b.l.device
	var own entry
	version, err := h.get(ctx, entryKey(self, channel), &own)
	switch {
	case err != nil:
		return err
	case version == 0:
		return refuse(ccp.CodeNoChannel, "")
	case own.Group != "":
		b.rt.group = own.Group
		return b.group(ctx, own.Group, channel)
	case h.opt.Compat.OpenChannels:
		var o open
		if _, err := h.get(ctx, openKey(channel), &o); err != nil {
			return err
		}
		if !slices.Contains(o.Members, self) {
			return refuse(ccp.CodeNotMember, "")
		}
		return b.devices(ctx, o.Members, false)
	}
	return b.peers(ctx, channel, own.Peers)
}

// peers keeps those in whose own table the sender stands.
func (b *routeBuilder) peers(ctx context.Context, channel uint32, peers []string) error {
	if len(peers) == 0 {
		return nil
	}
	h := b.l.h
	keys := make([]storage.Key, len(peers))
	for i, p := range peers {
		keys[i] = entryKey(p, channel)
	}
	recs, err := h.records(ctx, keys...)
	if err != nil {
		return err
	}
	reach := make([]string, 0, len(peers))
	for i, r := range recs {
		var e entry
		version, err := decode(r, &e)
		if err != nil {
			return err
		}
		if version != 0 && e.Group == "" && slices.Contains(e.Peers, b.l.device) {
			reach = append(reach, peers[i])
			continue
		}
		b.refuse(peers[i], ccp.CodeUnreachable)
	}
	if err := b.devices(ctx, reach, true); err != nil {
		return err
	}
	if len(b.rt.to) == 0 {
		return refuse(ccp.CodeUnreachable, "")
	}
	return nil
}

// handleJoin declares whom the device exchanges with on a channel (ccp1.md 6.2,
// W6): it changes the joiner's own table, and adds the id to the named members'
// tables only where the contact policy lets the joiner write to them.
func (l *Link) handleJoin(ctx context.Context, f ccp.Frame) error {
	j, err := ccp.ParseJoin(f.Payload)
	if err != nil {
		return refuse(CodeBadRequest, err.Error())
	}
	if f.Channel == 0 {
		return refuse(ccp.CodeNoChannel, "channel 0 is for direct messages")
	}
	if len(j.Members) > l.h.opt.Limits.Members {
		return refuse(CodeLimit, "too many members")
	}
	if j.GroupID != "" {
		return l.joinGroup(ctx, f, j)
	}
	members := unique(j.Members, l.device)
	added, known, err := l.reachable(ctx, members)
	if err != nil {
		return err
	}
	err = l.h.transact(ctx, func(c *change) error {
		if l.h.opt.Compat.OpenChannels {
			return l.joinOpen(ctx, c, f.Channel, j.Relay, added)
		}
		return l.joinOwn(ctx, c, f.Channel, j.Relay, members, added, known)
	})
	if err != nil {
		return err
	}
	l.h.touchChannel(f.Channel)
	l.reply(f)
	l.announceJoin(ctx, f.Channel, j.Relay)
	return nil
}

func unique(list []string, self string) []string {
	seen := map[string]bool{self: true}
	out := make([]string, 0, len(list))
	for _, s := range list {
		if s != "" && len(s) <= 255 && !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// reachable keeps the devices that exist and that the policy lets this one write to; the
// others stay silent. known are all that exist.
func (l *Link) reachable(ctx context.Context, devices []string) (reach, known []string, err error) {
	reach = make([]string, 0, len(devices))
	for _, id := range devices {
		d, err := l.h.accounts.Device(ctx, id)
		if errors.Is(err, ErrUnknown) {
			l.h.contacts.unknown(ctx, l.user)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		known = append(known, id)
		ok, err := l.h.contacts.allowed(ctx, l.user, d.User, d.Active)
		if err != nil {
			return nil, nil, err
		}
		if ok && d.Active {
			reach = append(reach, id)
		}
	}
	return reach, known, nil
}

// joinOwn sets the joiner's entry to all members, also those that do not exist yet, and
// adds entries to the tables of those in added: there with known members alone.
func (l *Link) joinOwn(ctx context.Context, c *change, channel uint32, relay bool, members, added, known []string) error {
	entries, versions, err := c.load(ctx, channel, append([]string{l.device}, added...))
	if err != nil {
		return err
	}
	own := entries[l.device]
	mine := &entry{Peers: members, By: l.device, Relay: relay}
	if own != nil {
		if own.Group != "" {
			return refuse(ccp.CodeChannelTaken, "the channel belongs to a group")
		}
		mine.By = own.By
	}
	if !c.room(l.device, l.device, own, mine) {
		return refuse(CodeLimit, "the channel table is full")
	}
	c.put(l.device, channel, versions[l.device], own, mine)
	for _, m := range added {
		if e := entries[m]; e != nil {
			if e.Group != "" || !slices.Contains(e.Peers, l.device) {
				return refuse(ccp.CodeChannelTaken, "")
			}
			continue // never overwrite another device's entry
		}
		theirs := &entry{Peers: []string{l.device}, By: l.device, Relay: relay}
		for _, p := range known {
			if p != m {
				theirs.Peers = append(theirs.Peers, p)
			}
		}
		if c.room(m, l.device, nil, theirs) {
			c.put(m, channel, 0, nil, theirs)
		}
	}
	return nil
}

// joinOpen merges the joiner into a global channel (compat.open_channels).
func (l *Link) joinOpen(ctx context.Context, c *change, channel uint32, relay bool, added []string) error {
	entries, versions, err := c.load(ctx, channel, append([]string{l.device}, added...))
	if err != nil {
		return err
	}
	if own := entries[l.device]; own != nil && own.Group != "" {
		return refuse(ccp.CodeChannelTaken, "the channel belongs to a group")
	}
	var o open
	version, err := l.h.get(ctx, openKey(channel), &o)
	if err != nil {
		return err
	}
	before := len(o.Members)
	for _, d := range append([]string{l.device}, added...) {
		if e := entries[d]; e != nil && e.Group != "" {
			continue
		}
		if entries[d] == nil {
			e := &entry{By: l.device, Relay: relay}
			if !c.room(d, l.device, nil, e) {
				if d == l.device {
					return refuse(CodeLimit, "the channel table is full")
				}
				continue
			}
			c.put(d, channel, versions[d], nil, e)
		}
		if !slices.Contains(o.Members, d) {
			o.Members = append(o.Members, d)
		}
	}
	if len(o.Members) > l.h.opt.Limits.Members {
		return refuse(CodeLimit, "the channel is full")
	}
	if len(o.Members) != before {
		c.write(openKey(channel), version, encode(o))
	}
	return nil
}

// announceJoin tells what existing clients need: the joined channel must arrive
// as a frame before they can send on it, and members learn that the joiner is
// there. No address is ever told (W16).
func (l *Link) announceJoin(ctx context.Context, channel uint32, relay bool) {
	rt, err := l.routeFor(ctx, channel, nil, false, true)
	if err != nil {
		rt = &route{}
	}
	members := []string{l.device}
	for _, r := range rt.to {
		members = append(members, r.device)
	}
	join := ccp.Join{Relay: relay, Members: members, GroupID: rt.group}.Marshal()
	if l.plain || !l.ack {
		l.box.Control(ccp.TypeJoin, channel, join)
	}
	presence := ccp.AppendObject(nil, ccp.Uint("channel", uint64(channel)), ccp.Text("entity", l.device),
		ccp.Text("peer", l.device), ccp.Text("state", ccp.StateOnline))
	for _, r := range rt.to {
		to := l.h.link(r.device)
		if to == nil || to.ack {
			continue
		}
		if l.h.opt.Compat.OpenChannels {
			to.box.Control(ccp.TypeJoin, channel, join)
		}
		if !relay {
			to.box.Control(ccp.TypePresence, channel, presence)
		}
	}
}

// handleLeave removes the leaver's own entry, and nobody else's.
func (l *Link) handleLeave(ctx context.Context, f ccp.Frame) error {
	err := l.h.transact(ctx, func(c *change) error {
		entries, versions, err := c.load(ctx, f.Channel, []string{l.device})
		if err != nil {
			return err
		}
		own := entries[l.device]
		if own == nil {
			return refuse(ccp.CodeNoChannel, "")
		}
		c.drop(l.device, f.Channel, versions[l.device], own)
		if own.Group != "" {
			return l.leaveGroup(ctx, c, own.Group)
		}
		var o open
		version, err := l.h.get(ctx, openKey(f.Channel), &o)
		if err != nil || version == 0 || !slices.Contains(o.Members, l.device) {
			return err
		}
		o.Members = slices.DeleteFunc(o.Members, func(d string) bool { return d == l.device })
		if len(o.Members) == 0 {
			c.write(openKey(f.Channel), version, nil)
		} else {
			c.write(openKey(f.Channel), version, encode(o))
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.h.touchChannel(f.Channel)
	l.reply(f)
	return nil
}
