package relay

import (
	"sync"
	"time"
)

const (
	// poisonAfter is the number of connections in a row that a row seems to have ended
	// after which it is moved behind the others.
	poisonAfter  = 16
	maxHistories = 65536
	// outlived is how long a connection lasts that none of its rows ended: to be
	// received, to crash the device and to have that noticed takes no longer.
	outlived = 5 * time.Minute
)

// history is what earlier connections of a device received and did not acknowledge: it
// finds the row that crashes its recipient whenever it comes, so that the others get
// past it. That costs the order of the sender's messages, so only the first row without
// Done is suspected, and only where the connection ended early and without the device's
// word that it lives. It is lost with the process: then rows are sent a few times more
// before they are moved, and without the flag "sent before".
type history struct {
	high  uint64 // highest position sent by an earlier connection
	first uint64 // the first row without Done
	ended uint8  // connections in a row that it seems to have ended
}

func (h *history) poisoned(pos uint64) bool {
	return h != nil && h.first == pos && h.ended >= poisonAfter
}

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

// ended notes a connection's end: the first row that waits for Done (0: none), how far
// the connection came, and whether that row may have ended it.
func (t *histories) ended(device string, first, pushed uint64, suspect bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var old history
	if h := t.m[device]; h != nil {
		old = *h
	}
	n := history{high: max(pushed, old.high), first: first}
	switch {
	case first == 0 && pushed >= old.high:
		// Whatever was sent was acknowledged; rows behind pushed were not sent.
		delete(t.m, device)
		return
	case first == 0 && old.first > pushed: // it was not sent this time
		n.first, n.ended = old.first, old.ended
	case first == 0 || !suspect:
	case first == old.first:
		n.ended = min(old.ended, 254) + 1
	default:
		n.ended = 1
	}
	if _, ok := t.m[device]; !ok && len(t.m) >= maxHistories {
		for k := range t.m {
			delete(t.m, k)
			break
		}
	}
	t.m[device] = &n
}
