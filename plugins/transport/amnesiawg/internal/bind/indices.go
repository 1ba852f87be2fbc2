package bind

import (
	"sync"
	"time"
)

const (
	// indexLife is longer than a session can live (WireGuard's reject-after time is
	// 180 s) after the handshake message that names its index.
	indexLife = 240 * time.Second
	// indexSlack is how many indices there may be beyond twice those that were
	// left when the old ones were last forgotten.
	indexSlack = 256
)

// indices are what our handshake messages have lately called our end of a session.
// Data for any other is nobody's: it ends here, and a stranger has to guess 32 bits.
type indices struct {
	mu    sync.RWMutex
	until map[uint32]time.Time
	next  int // at so many the old ones are forgotten
}

func (t *indices) init() { t.until, t.next = map[uint32]time.Time{}, indexSlack }

func (t *indices) add(index uint32, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until[index] = now.Add(indexLife)
	if len(t.until) < t.next {
		return
	}
	for i, until := range t.until {
		if now.After(until) {
			delete(t.until, i)
		}
	}
	t.next = 2*len(t.until) + indexSlack
}

// has is for the goroutines that read; an index that is over may still be there.
func (t *indices) has(index uint32) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, ok := t.until[index]
	return ok
}
