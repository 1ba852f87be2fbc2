package relay

import (
	"context"
	"sync"
)

// marker stores duplicate tables at most MarkDelay after they changed; its timer
// runs only while one waits.
type marker struct {
	h     *Hub
	mu    sync.Mutex
	dirty []*sender
	wake  chan struct{}
}

// markLater notes that the sender's table changed.
func (h *Hub) markLater(s *sender) {
	s.mu.Lock()
	s.dirty = true
	queued := s.queued
	s.queued = true
	s.mu.Unlock()
	if !queued {
		h.marker.add(s)
	}
}

func (m *marker) add(s *sender) {
	m.mu.Lock()
	m.dirty = append(m.dirty, s)
	first := len(m.dirty) == 1
	m.mu.Unlock()
	if first {
		select {
		case m.wake <- struct{}{}:
		default:
		}
	}
}

func (m *marker) run(ctx context.Context) {
	for {
		select {
		case <-m.wake:
			m.h.sleep(ctx, m.h.opt.Limits.MarkDelay)
			m.flush()
		case <-ctx.Done():
			return
		}
	}
}

// flush hands every changed table to its lane.
func (m *marker) flush() {
	m.mu.Lock()
	dirty := m.dirty
	m.dirty = nil
	m.mu.Unlock()
	for _, s := range dirty {
		m.h.lane(s.device).putMarks(s)
	}
}
