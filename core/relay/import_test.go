package relay

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// TestImportedGroup: a group without a channel takes that of the first member who takes
// it up, and is a group like any other from then on.
func TestImportedGroup(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		list := []ForeignGroup{{ID: "g", Owner: "a.1", Members: []ForeignMember{{"c.1", "admin"}, {"d.1", "owner"}, {"c.1", "member"}}}, {ID: "h", Owner: "a.1"}}
		for try := range 2 {
			out, err := ImportGroups(t.Context(), b.store.store().Directory, time.Now(), list)
			if err != nil || out[0] != (GroupOutcome{Present: try == 1}) {
				t.Fatalf("%+v, %v", out, err)
			}
		}
		other := []ForeignGroup{{ID: "g", Owner: "x.1"}}
		if out, err := ImportGroups(t.Context(), b.store.store().Directory, time.Now(), other); err != nil || !out[0].Conflict {
			t.Errorf("%+v, %v", out, err)
		}
		a, c, d, x := b.connect("a.1", allCaps, 0), b.connect("c.1", allCaps, 0), b.connect("d.1", allCaps, 0), b.connect("x.1", allCaps, 0)
		x.must(ccp.TypeJoin, 5, `{"group_id":"g"}`)
		x.must(ccp.TypeGroupCreate, 5, `{"group_id":"g"}`)
		settle()
		check(t, "a stranger", x.errors(), "not_member group_exists")
		c.must(ccp.TypeJoin, 5, `{"group_id":"g"}`)
		settle()
		d.must(ccp.TypeJoin, 6, `{"group_id":"g"}`)
		settle()
		check(t, "another channel", d.errors(), "no_channel")
		d.must(ccp.TypeJoin, 5, `{"group_id":"g"}`)
		settle()
		d.must(ccp.TypeMsg, 5, "hi")
		settle()
		for name, p := range map[string]*peer{"a": a, "c": c} {
			if got := p.take(); len(got) == 0 || string(got[len(got)-1].Body) != "hi" || got[len(got)-1].Channel != 5 {
				t.Errorf("%s has %+v", name, got)
			}
		}
		d.must(ccp.TypeGroupInvite, 5, `{"group_id":"g","device":"x.1"}`) // one of two owners was lowered to admin
		settle()
		check(t, "an admin", d.errors(), "")
		// Channel 0, where "h" waits until it is taken up, is no channel to invite on.
		a.takeControls()
		a.must(ccp.TypeGroupInvite, 0, `{"group_id":"h","device":"c.1"}`)
		settle()
		check(t, "invite on channel 0", a.errors(), "no_channel")
		var h group
		version, err := b.hub.get(t.Context(), groupKey("h"), &h)
		if err != nil || version == 0 || len(h.Members) != 1 {
			t.Errorf("the refused invitation changed the group: %+v, %v", h, err)
		}
		if n := b.bytesOf("c.1/00000000"); n != 0 {
			t.Errorf("the refused invitation left an entry of %d bytes", n)
		}
		// The owner may make it again as well, as clients of the reference do.
		a.must(ccp.TypeGroupCreate, 8, `{"group_id":"h"}`)
		a.must(ccp.TypeMsg, 8, "alone")
		settle()
		check(t, "the owner", a.errors(), "")
	})
}

// TestImportedMessage: what a Sealer made comes out of the hub, without a sender.
func TestImportedMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		s := NewSealer([32]byte{7}, strings.NewReader(strings.Repeat("n", 64)))
		m := Foreign{
			Row: [16]byte{1}, ID: ccp.MessageID{Log: [8]byte{2}, Counter: 3}, Kind: ccp.TypeMsg, Channel: 9,
			Body: []byte("text"), Time: time.UnixMilli(5000), Expires: time.Now().Add(time.Hour),
		}
		row, err := s.Seal("c.1", &m)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := b.store.store().Queues.Append(t.Context(), time.Now(), storage.Batch{Rows: []storage.Append{row}}); err != nil || out[0].Err != nil {
			t.Fatalf("%v %v", out, err)
		}
		c := b.connect("c.1", allCaps, 0)
		settle()
		got := c.take()
		if len(got) != 1 || string(got[0].Body) != "text" || got[0].Channel != 9 || got[0].ID != m.ID || got[0].Device != "" || got[0].Time != 5000 || got[0].Flags != 0 {
			t.Errorf("%+v", got)
		}
		for name, bad := range map[string]Foreign{
			"voice":     {Kind: ccp.TypeVoiceFrame},
			"a hello":   {Kind: ccp.TypeHello, Body: []byte("{}")},
			"no JSON":   {Kind: ccp.TypeTyping, Body: []byte("{")},
			"a Deliver": {Kind: ccp.TypeDeliver},
		} {
			var e *ccp.Error
			if _, err := s.Seal("c.1", &bad); !errors.As(err, &e) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
