package relay

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// maxLogs is how many logs of a device the server remembers.
const maxLogs = 4

// A device's duplicate table as a mark: version u8 = 1, then per log
//
//	log 8 | last use, unix s u32 | len u16 | window
const (
	markVersion = 1
	markPrefix  = "dup/"
)

// LogState says which counters of a log are done.
type LogState = ccp.LogState

// sender is what the relay knows of the messages that a device sends. It is
// shared by all links of the device, so a takeover loses nothing in flight.
type sender struct {
	device string

	mu      sync.Mutex
	logs    []*sentLog
	refs    int // links, and messages in flight
	dirty   bool
	queued  bool // a mark is on its way
	loaded  bool
	loading chan struct{}
}

type sentLog struct {
	log  [8]byte
	win  ccp.Window
	used uint32 // unix s
}

// find returns the log's table, making one and forgetting the longest unused if
// need be. mu is held.
func (s *sender) find(log [8]byte, now time.Time) *sentLog {
	used := uint32(now.Unix())
	oldest := 0
	for i, l := range s.logs {
		if l.log == log {
			l.used = used
			return l
		}
		if l.used < s.logs[oldest].used {
			oldest = i
		}
	}
	n := &sentLog{log: log, used: used}
	if len(s.logs) < maxLogs {
		s.logs = append(s.logs, n)
	} else {
		s.logs[oldest] = n
	}
	return n
}

// states is a copy of what is done.
func (s *sender) states() []LogState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]LogState, 0, len(s.logs))
	for _, l := range s.logs {
		out = append(out, LogState{Log: l.log, Done: l.win.Ranges()})
	}
	return out
}

func (s *sender) markKey() string { return markPrefix + s.device }

// mark is the table as stored; false: nothing new.
func (s *sender) mark() (storage.Mark, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return storage.Mark{}, false
	}
	s.dirty = false
	b := make([]byte, 1, 1+len(s.logs)*(8+4+2+520))
	b[0] = markVersion
	for _, l := range s.logs {
		w, err := l.win.MarshalBinary()
		if err != nil {
			continue
		}
		b = append(b, l.log[:]...)
		b = binary.BigEndian.AppendUint32(b, l.used)
		b = binary.BigEndian.AppendUint16(b, uint16(len(w)))
		b = append(b, w...)
	}
	return storage.Mark{Key: s.markKey(), Value: b}, true
}

// load reads a stored table; what does not parse is forgotten, which costs
// duplicates at the receivers only.
func (s *sender) load(b []byte) {
	if len(b) == 0 || b[0] != markVersion {
		return
	}
	b = b[1:]
	for len(b) >= 14 && len(s.logs) < maxLogs {
		l := &sentLog{used: binary.BigEndian.Uint32(b[8:])}
		copy(l.log[:], b)
		n := int(binary.BigEndian.Uint16(b[12:]))
		b = b[14:]
		if len(b) < n || l.win.UnmarshalBinary(b[:n]) != nil {
			return
		}
		s.logs = append(s.logs, l)
		b = b[n:]
	}
}

// marked is told that the mark has been stored.
func (s *sender) marked(h *Hub) {
	s.mu.Lock()
	s.queued = false
	again := s.dirty
	s.mu.Unlock()
	if again {
		h.markLater(s)
		return
	}
	h.senders.drop(s)
}

// senders holds the sender of every device that is connected, has messages in
// flight or a mark to store.
type senders struct {
	mu sync.Mutex
	m  map[string]*sender
}

// acquire returns the device's sender with one more reference, reading its mark
// if it is not in memory.
func (t *senders) acquire(ctx context.Context, q storage.Queues, device string) (*sender, error) {
	for {
		t.mu.Lock()
		s := t.m[device]
		if s == nil {
			s = &sender{device: device, loading: make(chan struct{})}
			t.m[device] = s
			s.refs = 1
			t.mu.Unlock()
			marks, err := q.Marks(ctx, []string{s.markKey()})
			t.mu.Lock()
			if err != nil {
				delete(t.m, device)
			} else {
				if len(marks) > 0 {
					s.load(marks[0])
				}
				s.loaded = true
			}
			close(s.loading)
			t.mu.Unlock()
			return s, err
		}
		if s.loaded {
			s.mu.Lock()
			s.refs++
			s.mu.Unlock()
			t.mu.Unlock()
			return s, nil
		}
		t.mu.Unlock()
		select {
		case <-s.loading:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// release gives a reference back.
func (t *senders) release(s *sender) {
	s.mu.Lock()
	s.refs--
	last := s.refs == 0
	s.mu.Unlock()
	if last {
		t.drop(s)
	}
}

// drop forgets a sender that nothing needs.
func (t *senders) drop(s *sender) {
	t.mu.Lock()
	s.mu.Lock()
	if s.refs == 0 && !s.dirty && !s.queued && t.m[s.device] == s {
		delete(t.m, s.device)
	}
	s.mu.Unlock()
	t.mu.Unlock()
}

// outLog is one log of one session: what waits to be acknowledged and whether
// the log stands still after a passing failure. All but epoch is guarded by
// Link.in.
type outLog struct {
	log   [8]byte
	sent  *sentLog // guarded by sender.mu
	epoch atomic.Uint32

	failed   uint64 // the counter that must come again; 0: none
	reported uint64 // the last that was reported as failed
	done     [][2]uint64
	refused  []ackRefusal
	dirty    bool
}

type ackRefusal struct {
	counter      uint64
	device, code string
}

// add notes a counter that is done, mostly the successor of the last.
func (o *outLog) add(counter uint64) {
	for i := len(o.done) - 1; i >= 0 && i >= len(o.done)-4; i-- {
		switch r := &o.done[i]; {
		case counter >= r[0] && counter <= r[1]:
			return
		case counter == r[1]+1:
			r[1] = counter
			return
		case counter+1 == r[0]:
			r[0] = counter
			return
		}
	}
	o.done = append(o.done, [2]uint64{counter, counter})
}
