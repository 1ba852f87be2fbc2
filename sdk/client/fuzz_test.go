package client

import (
	"net"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/noise"
)

// FuzzAfterHandshake gives an established session whatever bytes as frames: it
// must neither panic nor lose count nor store a message twice.
func FuzzAfterHandshake(f *testing.F) {
	frame := func(t ccp.Type, payload []byte) []byte {
		b, err := ccp.Append(nil, ccp.Frame{Type: t, Sequence: 1, Payload: payload})
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	d, _ := ccp.AppendDeliver(nil, ccp.Deliver{Kind: ccp.TypeMsg, Position: 1, ID: ccp.MessageID{Counter: 1}, Device: []byte("a"), Body: []byte("x")})
	a, _ := ccp.AppendSendAck(nil, ccp.SendAck{Log: [8]byte{0xa1}, Done: [][2]uint64{{1, 1 << 63}}, Refused: []ccp.Refusal{{Counter: 2}}})
	for _, b := range [][]byte{
		frame(ccp.TypeDeliver, d), append(frame(ccp.TypeDeliver, d), frame(ccp.TypeDeliver, d)...), frame(ccp.TypeAck, a),
		frame(ccp.TypeAck, []byte(`{"ack":3}`)), frame(ccp.TypeError, []byte(`{"error":"unavailable","log":"a100000000000000","counter":1,"retry_ms":4294967295}`)),
		frame(ccp.TypeError, []byte(`{"error":"bad_id","log":"a100000000000000","counter":1}`)), frame(ccp.TypeError, []byte(`{"error":"replaced"}`)),
		frame(ccp.TypeMove, ccp.Move{Reason: "drain"}.Marshal()), frame(ccp.TypePad, make([]byte, 100)), frame(ccp.TypeKeyUpdate, []byte(`{"type":"certificate-renewed","certificate":{}}`)),
		frame(ccp.TypeGroupEvent, []byte(`{}`)), frame(ccp.TypePresence, []byte(`{}`)), {0xff, 0xff, 0xff, 7}, {0},
	} {
		f.Add(b)
	}
	r := newRelay(f)
	opt := r.options(0)
	f.Fuzz(func(t *testing.T, b []byte) {
		store := memory()
		opt.Store = store
		c, err := New(opt)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		a, z := net.Pipe()
		defer a.Close()
		defer z.Close()
		s := newSession(c, &dialled{conn: a}, nil, nil, 3)
		var tickets []*Ticket
		for range 3 {
			k, err := c.Send(Draft{To: []string{"b"}})
			if err != nil {
				t.Fatal(err)
			}
			tickets = append(tickets, k)
		}
		s.window = 2
		if _, _, _, err := s.gather(nil, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
		s.open = noise.NewOpener(noise.NewCipher([32]byte{}))
		s.now = time.Now()
		_, rest, err := s.batch(nil, b)
		if len(rest) > len(b) {
			t.Fatal("more left than there was")
		}
		if err == nil {
			err = s.store()
		}
		if s.leaver != nil {
			s.leaver.Stop()
		}
		if err != nil && err.Error() == "" {
			t.Fatal("an error without a text")
		}
		c.out.mu.Lock()
		flying := c.out.inflight
		if flying < 0 || flying > 2 || c.out.flying < 0 || c.out.pending < 0 || c.out.bytes < 0 {
			t.Fatalf("%d in flight, %d bytes, %d pending", flying, c.out.flying, c.out.pending)
		}
		c.out.mu.Unlock()
		select {
		case <-tickets[2].Done():
			t.Fatal("a message that was never sent has an answer")
		default:
		}
		seen := make(map[string]bool)
		ms, _ := store.Inbox(1 << 20)
		last := uint64(0)
		for _, m := range ms {
			id := m.Device + m.ID.String()
			if seen[id] || m.Position <= last {
				t.Fatal("stored twice or out of order")
			}
			seen[id], last = true, m.Position
		}
	})
}
