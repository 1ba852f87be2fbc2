package relay

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// Foreign is a message that another program queued. Who sent it is not known: it comes
// to the device as the relay's own do, without a sender.
type Foreign struct {
	// Row is the id of the row, ID that under which the device shows it once.
	Row [16]byte
	ID  ccp.MessageID
	// Kind, Channel and Body are the frame's.
	Kind    ccp.Type
	Channel uint32
	Body    []byte
	// Time is when it was taken.
	Time, Expires time.Time
}

// Sealer makes rows of messages without a hub, for an import. It serves one goroutine.
type Sealer struct{ v *vault }

// NewSealer takes the key that a hub's Options.StorageKey has.
func NewSealer(key [32]byte, random io.Reader) *Sealer { return &Sealer{newVault(key, random)} }

// Seal makes the row of a message for one device. A kind that is not delivered, and a
// body that is none of its kind, are refused with an *ccp.Error.
func (s *Sealer) Seal(device string, m *Foreign) (storage.Append, error) {
	if m.Kind.Media() {
		return storage.Append{}, &ccp.Error{Kind: ccp.BadKind, Field: "kind"}
	}
	_, err := ccp.AppendDeliver(nil, ccp.Deliver{Kind: m.Kind, Body: m.Body})
	if err != nil {
		return storage.Append{}, err
	}
	e := envelope{kind: m.Kind, channel: m.Channel, time: m.Time.UnixMilli(), id: m.ID, body: m.Body}
	b, err := s.v.appendSealed(make([]byte, 0, e.size()+sealOverhead), &e, device, m.Row)
	return storage.Append{Queue: device, ID: m.Row, Payload: b, Expires: m.Expires}, err
}

// ForeignGroup is a group that another program kept. Its members exist here.
type ForeignGroup struct {
	ID, Owner string
	// Members are the others, with their roles; one that is neither owner nor admin is
	// a member.
	Members []ForeignMember
}

// ForeignMember is one member of a ForeignGroup.
type ForeignMember struct{ Device, Role string }

// GroupOutcome says what an import did with a group: stored, there already, or that
// another one has its place.
type GroupOutcome struct{ Present, Conflict bool }

// ImportGroups stores groups in one Commit; they have no channel until a member takes
// them up. One that is there with the same owner among its members is the same.
func ImportGroups(ctx context.Context, d storage.Directory, now time.Time, list []ForeignGroup) ([]GroupOutcome, error) {
	keys := make([]storage.Key, len(list))
	for i := range list {
		keys[i] = groupKey(list[i].ID)
	}
	recs, err := d.Get(ctx, now, keys)
	if err != nil {
		return nil, err
	}
	if len(recs) != len(keys) {
		return nil, fmt.Errorf("relay: the storage gave %d answers for %d keys", len(recs), len(keys))
	}
	out := make([]GroupOutcome, len(list))
	var writes []storage.Write
	for i := range list {
		f := &list[i]
		var have group
		version, err := decode(recs[i], &have)
		if err != nil {
			return nil, err
		}
		if version != 0 {
			out[i] = GroupOutcome{Present: have.find(f.Owner) != nil, Conflict: have.find(f.Owner) == nil}
			continue
		}
		g := group{Relay: true, Members: []membership{{f.Owner, ccp.RoleOwner}}}
		for _, m := range f.Members {
			role := ccp.RoleMember
			if m.Role == ccp.RoleOwner || m.Role == ccp.RoleAdmin { // of owners there is one
				role = ccp.RoleAdmin
			}
			if g.find(m.Device) == nil {
				g.Members = append(g.Members, membership{m.Device, role})
			}
		}
		writes = append(writes, storage.Write{Key: keys[i], Value: encode(g)})
	}
	if len(writes) == 0 {
		return out, nil
	}
	return out, d.Commit(ctx, now, writes)
}
