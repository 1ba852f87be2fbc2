package client

import (
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
	windows map[WindowKey]*ccp.Window
}

// NewMemoryStore makes an empty store whose messages are named by log.
func NewMemoryStore(log [8]byte) *MemoryStore {
	return &MemoryStore{state: State{Log: log, Next: 1}, windows: make(map[WindowKey]*ccp.Window)}
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
	s.state.Resume, s.state.ResumeUntil, s.state.ResumeKey = st.Resume, st.ResumeUntil, st.ResumeKey
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
			return compare(o.Counter, c)
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
	if w := s.windows[k]; w != nil {
		c := *w
		return &c, nil
	}
	return new(ccp.Window), nil
}

// Arrive implements Store.
func (s *MemoryStore) Arrive(a Arrival) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inbox = append(s.inbox, a.Messages...)
	for k, w := range a.Windows {
		c := *w
		s.windows[k] = &c
	}
	s.state.Cursor = max(s.state.Cursor, a.Cursor)
	return nil
}

// Inbox implements Store.
func (s *MemoryStore) Inbox(limit int) ([]Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.inbox[:min(limit, len(s.inbox))]), nil
}

// Shown implements Store.
func (s *MemoryStore) Shown(positions []uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range positions {
		if len(s.inbox) > 0 && s.inbox[0].Position == p {
			s.inbox[0] = Message{}
			s.inbox = s.inbox[1:]
			continue
		}
		s.inbox = slices.DeleteFunc(s.inbox, func(m Message) bool { return m.Position == p })
	}
	return nil
}

// Close implements Store.
func (s *MemoryStore) Close() error { return nil }

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
