package relay

import (
	"context"
	"encoding/binary"

	"github.com/commucat/commucat/sdk/ccp"
)

// Messages between nodes are sealed like rows, for a queue that no device has: who
// has the volatile store alone can neither read nor make them. Inside lies an
// envelope whose kind is one of these, with the body
//
//	1 | (len u8 | device) …                    rows were stored for the devices; none:
//	                                           every node looks after all of its own
//	2 | own u8 | len u8 | device | envelope    a message that is not stored
//	3 | fence u64 | len u8 | device | user     the device has connected, as this user's
//	4 | len u8 | node | bytes                  Tell
//	5 | run 8                                  tick: the sender hears itself
//	6 | channel u32                            who is on the channel has changed
const (
	busWake      = 1
	busEphemeral = 2
	busClaimed   = 3
	busTold      = 4
	busTick      = 5
	busChannel   = 6
)

var (
	busQueue = "bus"
	busID    = [16]byte{'b', 'e', 't', 'w', 'e', 'e', 'n', ' ', 'n', 'o', 'd', 'e', 's'}
)

func (b *bus) seal(kind byte, body []byte) ([]byte, error) {
	v := b.h.vaults.Get().(*vault)
	defer b.h.vaults.Put(v)
	return v.appendSealed(nil, &envelope{kind: ccp.Type(kind), body: body}, busQueue, busID)
}

// open gives kind and body; false: it is no message of these relays.
func (b *bus) open(m []byte) (kind byte, body []byte, ok bool) {
	v := b.h.vaults.Get().(*vault)
	defer b.h.vaults.Put(v)
	var e envelope
	if err := v.openRow(&e, m, busQueue, busID); err != nil {
		return 0, nil, false
	}
	return byte(e.kind), e.body, true
}

func appendName(dst []byte, name string) []byte { return append(append(dst, byte(len(name))), name...) }

func (j *ephemeralJob) body(i int) []byte {
	m := []byte{0}
	if j.own[i] {
		m[0] = 1
	}
	return j.env.append(appendName(m, j.devices[i]))
}

func claimedBody(l *Link) []byte {
	m := binary.BigEndian.AppendUint64(nil, l.fence)
	return append(appendName(m, l.device), l.user...)
}

// receive takes what came on topic i.
func (b *bus) receive(ctx context.Context, i int, m []byte) {
	kind, body, ok := b.open(append([]byte(nil), m...))
	if !ok {
		b.h.log.Warn("bus", "foreign", len(m))
		return
	}
	switch kind {
	case busTick:
		b.ticked(i, body)
	case busWake:
		b.receiveWake(body)
	case busEphemeral:
		b.receiveEphemeral(body)
	case busClaimed:
		b.receiveClaimed(body)
	case busChannel:
		if len(body) == 4 {
			b.h.gens[b.h.channelSlot(binary.BigEndian.Uint32(body))].Add(1)
		}
	case busTold:
		if node, rest, ok := cutName(body); ok && node != b.h.opt.Node && b.h.opt.Told != nil {
			b.h.opt.Told(ctx, rest)
		}
	}
}

// ticked notes that what is published on topic i arrives.
func (b *bus) ticked(i int, run []byte) {
	if string(run) != string(b.run[:]) {
		return
	}
	b.mu.Lock()
	b.heard[i] = b.h.now()
	up := b.up
	b.mu.Unlock()
	if !up {
		poke(b.look)
	}
}

func (b *bus) receiveWake(body []byte) {
	if len(body) == 0 {
		b.mu.Lock()
		b.up = false // the next tick mends it, with a look into storage
		b.mu.Unlock()
		poke(b.look)
		return
	}
	for len(body) > 0 {
		device, rest, ok := cutName(body)
		if !ok {
			return
		}
		body = rest
		if l := b.h.link(device); l != nil {
			l.reread()
		}
	}
}

func (b *bus) receiveEphemeral(body []byte) {
	if len(body) == 0 {
		return
	}
	own := body[0] == 1
	device, rest, ok := cutName(body[1:])
	if !ok {
		return
	}
	var e fleeting
	if l := b.h.link(device); l != nil && e.parse(rest) == nil {
		l.ephemeral(&e, own)
	}
}

// receiveClaimed ends the connection that the device has left for another node, and
// makes senders resolve its user anew.
func (b *bus) receiveClaimed(body []byte) {
	if len(body) < 8 {
		return
	}
	fence := binary.BigEndian.Uint64(body)
	device, user, ok := cutName(body[8:])
	if !ok {
		return
	}
	b.h.touchUser(string(user))
	b.h.touchUser(device)
	if l := b.h.link(device); l != nil && l.fence < fence {
		l.replaced()
	}
}
