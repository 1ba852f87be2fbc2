package client

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/commucat/commucat/sdk/ccp"
)

// MemoryStore is a Store that forgets everything with the process: for tests,
// load generators and programs that keep messages elsewhere.
type MemoryStore struct {
	mu      sync.Mutex
	state   State
	outbox  []Outgoing
	inbox   []Message
	windows map[WindowKey]*table

	arrivals uint64
}

// table is a duplicate table with the number of the arrival that used it last.
type table struct {
	ccp.Window
	used uint64
}

// NewMemoryStore makes an empty store whose messages are named by log.
func NewMemoryStore(log [8]byte) *MemoryStore {
	return &MemoryStore{state: State{Log: log, Next: 1}, windows: make(map[WindowKey]*table)}
}

// State implements Store.
func (s *MemoryStore) State() (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, nil
}

// SaveSession implements Store.
func (s *MemoryStore) SaveSession(st State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Resume, s.state.ResumeUntil = st.Resume, st.ResumeUntil
	s.state.ResumeKey, s.state.Confirmed = st.ResumeKey, st.Confirmed
	return nil
}

// Restart implements Store.
func (s *MemoryStore) Restart(log [8]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Log = log
	for i := range s.outbox {
		s.outbox[i].Counter = uint64(i + 1)
	}
	s.state.Next = uint64(len(s.outbox) + 1)
	return nil
}

// PutOutbox implements Store.
func (s *MemoryStore) PutOutbox(o []Outgoing) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(o) == 0 {
		return nil
	}
	s.outbox = append(s.outbox, o...)
	s.state.Next = o[len(o)-1].Counter + 1
	return nil
}

// Outbox implements Store.
func (s *MemoryStore) Outbox() ([]Outgoing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.outbox), nil
}

// DeleteOutbox implements Store.
func (s *MemoryStore) DeleteOutbox(counters []uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range counters {
		i, ok := slices.BinarySearchFunc(s.outbox, c, func(o Outgoing, c uint64) int {
			return cmp.Compare(o.Counter, c)
		})
		switch {
		case !ok:
		case i == 0:
			s.outbox[0] = Outgoing{}
			s.outbox = s.outbox[1:]
		default:
			s.outbox = slices.Delete(s.outbox, i, i+1)
		}
	}
	return nil
}

// Window implements Store.
func (s *MemoryStore) Window(k WindowKey) (*ccp.Window, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := new(ccp.Window)
	if t := s.windows[k]; t != nil {
		*w = t.Window
	}
	return w, nil
}

// Arrive implements Store.
func (s *MemoryStore) Arrive(a Arrival) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inbox = append(s.inbox, a.Messages...)
	s.arrivals++
	for k, w := range a.Windows {
		t := s.windows[k]
		if t == nil {
			t = new(table)
			s.windows[k] = t
		}
		t.Window, t.used = *w, s.arrivals
	}
	s.state.Cursor = max(s.state.Cursor, a.Cursor)
	if len(s.windows) > maxWindows {
		s.forget()
	}
	return nil
}

// forget drops the quarter of the duplicate tables that was not needed for the
// longest.
func (s *MemoryStore) forget() {
	keys := slices.Collect(maps.Keys(s.windows))
	slices.SortFunc(keys, func(a, b WindowKey) int { return cmp.Compare(s.windows[a].used, s.windows[b].used) })
	for _, k := range keys[:len(keys)/4] {
		delete(s.windows, k)
	}
}

// Inbox implements Store.
func (s *MemoryStore) Inbox(limit int) ([]Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.inbox[:min(limit, len(s.inbox))]), nil
}

// Unshown implements Sizer.
func (s *MemoryStore) Unshown() (messages int, bytes int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.inbox {
		bytes += cost(&s.inbox[i])
	}
	return len(s.inbox), bytes, nil
}

// Shown implements Store.
func (s *MemoryStore) Shown(positions []uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range positions {
		i := slices.IndexFunc(s.inbox, func(m Message) bool { return m.Position == p })
		switch {
		case i < 0:
		case i == 0:
			s.inbox[0] = Message{}
			s.inbox = s.inbox[1:]
		default:
			s.inbox = slices.Delete(s.inbox, i, i+1)
		}
	}
	return nil
}

// Close implements Store.
func (s *MemoryStore) Close() error { return nil }
