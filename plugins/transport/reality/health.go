package reality

import "sync"

// trouble is a kind of reason why clients do not get through; the first one is told.
type trouble uint8

const (
	troubleCover trouble = iota
	troublePause
	troubleClock
	troubleRecord
	troubleFiles
	troubles
)

// health tells the relay what is wrong, when that changes. It is safe for concurrent
// use.
type health struct {
	tell func(error)

	mu      sync.Mutex
	reasons [troubles]error
	told    string
	began   bool
}

func (h *health) set(t trouble, reason error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reasons[t] = reason
	var first error
	text := ""
	for _, r := range h.reasons {
		if r != nil {
			first, text = r, r.Error()
			break
		}
	}
	if !h.began || text != h.told {
		h.began, h.told = true, text
		h.tell(first)
	}
}
