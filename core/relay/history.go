package relay

import "sync"

const (
	// poisonAfter is the number of connections in which a row was sent without
	// Done after which it is moved behind the others.
	poisonAfter    = 16
	maxHistories   = 65536
	maxHistoryRows = 256
)

// history is what earlier connections of a device received and did not
// acknowledge. It is lost with the process: then rows are sent a few times more
// before they are moved, and without the flag "sent before".
type history struct {
	high   uint64           // highest position sent by an earlier connection
	counts map[uint64]uint8 // connections that received a row without Done
}

func (h *history) poisoned(pos uint64) bool { return h != nil && h.counts[pos] >= poisonAfter }

type histories struct {
	mu sync.Mutex
	m  map[string]*history
}

// of returns the device's history; it is not changed afterwards.
func (t *histories) of(device string) *history {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[device]
}

// ended notes a connection's end: what waits for Done, and how far it came.
func (t *histories) ended(device string, waiting []uint64, pushed uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.m[device]
	if len(waiting) == 0 {
		// Whatever was sent was acknowledged; rows behind pushed were not sent.
		if old != nil && pushed >= old.high {
			delete(t.m, device)
		}
		return
	}
	n := &history{high: max(pushed, waiting[len(waiting)-1]), counts: make(map[uint64]uint8, len(waiting))}
	if old != nil {
		n.high = max(n.high, old.high)
		for pos, c := range old.counts {
			if pos > pushed {
				n.counts[pos] = c
			}
		}
	} else if len(t.m) >= maxHistories {
		for k := range t.m {
			delete(t.m, k)
			break
		}
	}
	for _, pos := range waiting {
		if len(n.counts) == maxHistoryRows {
			break
		}
		c := uint8(1)
		if old != nil {
			c = min(old.counts[pos], 254) + 1
		}
		n.counts[pos] = c
	}
	t.m[device] = n
}
