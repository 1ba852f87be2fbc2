package relay

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/commucat/commucat/sdk/ccp"
)

// TestEphemeralHasALimit: what is not stored is refused over maxEphemeral, as a Send and
// as a frame of the reference, and the session goes on.
func TestEphemeralHasALimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a, c := b.connect("a.1", allCaps, 0), b.connect("c.1", allCaps, 0)
		for i, tc := range []struct {
			kind  ccp.Type
			flags uint8
			size  int
			want  string
		}{
			{ccp.TypeMsg, ccp.SendEphemeral, maxEphemeral, ""},
			{ccp.TypeMsg, ccp.SendEphemeral, maxEphemeral + 1, "too_large"},
			{ccp.TypeMsg, ccp.SendEphemeral, ccp.MaxBody, "too_large"},
			{ccp.TypeVoiceFrame, 0, maxEphemeral, ""},
			{ccp.TypeVoiceFrame, 0, maxEphemeral + 1, "too_large"},
			{ccp.TypeVideoFrame, 0, maxEphemeral + 1, "too_large"},
			{ccp.TypeMsg, 0, maxEphemeral + 1, ""}, // stored
		} {
			err := a.sendFrame(0, ccp.Send{
				Kind: tc.kind, Flags: tc.flags, ID: ccp.MessageID{Log: a.log, Counter: uint64(i + 1)},
				To: [][]byte{[]byte("c.1")}, Body: make([]byte, tc.size),
			})
			if err != nil {
				t.Fatal(err)
			}
			settle()
			check(t, "errors", a.errors(), tc.want)
		}
		if len(c.media) != 2 || len(c.take()) != 1 {
			t.Errorf("%d ephemeral frames came", len(c.media))
		}
		a.must(ccp.TypeJoin, 7, `{"members":["c.1"]}`)
		settle()
		a.errors()
		a.must(ccp.TypeVideoFrame, 7, strings.Repeat("v", maxEphemeral+1))
		settle()
		check(t, "errors", a.errors(), "too_large")
		if len(c.media) != 2 {
			t.Error("a frame over the limit came")
		}
	})
}

// keeper is a session that keeps what it is given.
type keeper struct {
	*fakeBox
	keptMu sync.Mutex
	kept   [][]byte
}

func (k *keeper) Media(_ ccp.Type, _ uint32, payload []byte) bool {
	k.keptMu.Lock()
	defer k.keptMu.Unlock()
	k.kept = append(k.kept, payload)
	return true
}

// TestEphemeralIsShared: all recipients get the same bytes, which are not the sender's
// buffer: that one is used again.
func TestEphemeralIsShared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBed(t, nil)
		defer b.stop()
		a := b.connect("a.1", allCaps, 0)
		var boxes []*keeper
		for _, device := range []string{"c.1", "c.2", "d.1", "o.1", "o.2", "a.2"} {
			caps := allCaps
			if strings.HasPrefix(device, "o.") {
				caps = ccp.Records
			}
			k := &keeper{fakeBox: &fakeBox{device: device, session: device, caps: caps}}
			b.acc.add(device, caps)
			l, err := b.hub.Attach(context.Background(), k, 0)
			if err != nil {
				t.Fatal(err)
			}
			l.Start()
			boxes = append(boxes, k)
		}
		payload, err := ccp.AppendSend(nil, ccp.Send{
			Kind: ccp.TypeVoiceFrame, ID: ccp.MessageID{Log: a.log, Counter: 1},
			To: [][]byte{[]byte("u-c"), []byte("d.1"), []byte("u-o")}, Body: []byte("voice"),
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the first waits for storage, and is copied for that
			if err := a.link.Handle(ccp.Frame{Type: ccp.TypeSend, Sequence: 2, Payload: payload}); err != nil {
				t.Fatal(err)
			}
			settle()
			payload[8+8]++ // the counter
		}
		clear(payload)
		first := boxes[0].kept[1]
		for _, k := range boxes {
			if len(k.kept) != 2 {
				t.Fatalf("%s got %d frames", k.device, len(k.kept))
			}
			got := k.kept[1]
			if !strings.HasSuffix(string(got), "voice") {
				t.Errorf("%s got %q", k.device, got)
			}
			own := k.device == "a.2"
			if shared := &got[len(got)-1] == &first[len(first)-1]; shared == own {
				t.Errorf("%s: the same bytes as the others: %t", k.device, shared)
			}
			if d, err := ccp.ParseDeliver(got); k.caps.Has(ccp.Ack) && (err != nil || d.Flags != FlagDirect|flagOf(own)) {
				t.Errorf("%s: %+v, %v", k.device, d, err)
			}
		}
	})
}

func flagOf(own bool) uint8 {
	if own {
		return FlagOwnCopy
	}
	return 0
}
