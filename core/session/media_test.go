package session

import (
	"bytes"
	"testing"

	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
)

// TestMediaBound: however large or small the frames are, what waits for a session that
// does not read holds no more memory than Limits.Media, and a large frame is shared.
func TestMediaBound(t *testing.T) {
	old := func(h *house, d *device) *client {
		c := h.old(t, d, "")
		if err := c.connect(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	join := func(h *house, d *device) *client { return h.join(t, d) }
	for _, tc := range []struct {
		name   string
		join   func(*house, *device) *client
		size   int
		shared bool
	}{
		{"records, 15 MiB", join, 15 << 20, true},
		{"records, 60 KiB", join, 60 << 10, true},
		{"records, 20 KiB", join, 20 << 10, true},
		{"records, 200 bytes", join, 200, false},
		{"old wire, 60 KiB", old, 60 << 10, false},
		{"old wire, 20 bytes", old, 20, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := compatHouse(t, false)
			c := tc.join(h, newDevice(t, "device-1", "alice"))
			s := begun(t, h, c)
			body := fill(tc.size)
			taken, dropped := 0, 0
			for dropped == 0 && taken < 10_000 {
				if s.Media(ccp.TypeVoiceFrame, 3, body) {
					taken++
				} else {
					dropped++
				}
				held, shared := held(s, body)
				// The last frame taken lies in a buffer of the pool.
				if most := h.opt.Limits.Media + largeBuf - 60<<10; held > most {
					t.Fatalf("%d frames hold %d bytes, more than %d", taken, held, most)
				}
				if held > 0 && shared != tc.shared {
					t.Fatalf("shared: %t", shared)
				}
			}
			if dropped == 0 || taken == 0 == (tc.size+ccp.MaxHeader <= h.opt.Limits.Media) {
				t.Fatalf("%d taken, %d dropped", taken, dropped)
			}
			for range taken {
				if f, err := c.read(); err != nil || f.Type != ccp.TypeVoiceFrame || !bytes.Equal(f.Payload, body) {
					t.Fatalf("%s of %d bytes, %v", f.Type, len(f.Payload), err)
				}
			}
		})
	}
}

// begun is the session of device-1 once a delivery has arrived: before its start it
// takes no media.
func begun(t *testing.T, h *house, c *client) *Session {
	t.Helper()
	s := h.relay.link("device-1").box.(*Session)
	s.Push(relay.Delivery{Position: 1, Kind: ccp.TypeMsg, Channel: 9, ID: ccp.MessageID{Counter: 1}, Device: "d", User: "u"})
	if _, err := c.read(); err != nil {
		t.Fatal(err)
	}
	return s
}

// held is the memory that the queue of a session holds on to, and whether body itself
// is in it.
func held(s *Session, body []byte) (n int, shared bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.queue {
		n += cap(p.b)
		shared = shared || len(p.b) > 0 && &p.b[0] == &body[0]
	}
	return n, shared
}

// TestMediaGivesWay: deliveries that wait leave media no room, and it has room again
// when they have gone.
func TestMediaGivesWay(t *testing.T) {
	h := newHouse(t, nil)
	c := h.join(t, newDevice(t, "device-1", "alice"))
	s := begun(t, h, c)
	const n = 8
	for i := range n {
		s.Push(relay.Delivery{Position: uint64(i + 2), Kind: ccp.TypeMsg, Channel: 9, ID: ccp.MessageID{Counter: 1}, Device: "d", User: "u", Body: fill(30 << 10)})
	}
	if s.Media(ccp.TypeVoiceFrame, 3, fill(20)) {
		t.Error("taken behind more than the bound")
	}
	for range n {
		if _, err := c.read(); err != nil {
			t.Fatal(err)
		}
	}
	if !s.Media(ccp.TypeVoiceFrame, 3, fill(20)) {
		t.Error("dropped although nothing waits")
	}
}
