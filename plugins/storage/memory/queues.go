package memory

import (
	"context"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

type queues struct {
	mu     sync.Mutex
	queues map[string]*queue
	marks  map[string][]byte
}

type queue struct {
	last  uint64
	rows  []storage.Envelope // by position
	ids   map[[16]byte]uint64
	bytes uint64
}

func newQueues() *queues {
	return &queues{queues: make(map[string]*queue), marks: make(map[string][]byte)}
}

func (s *queues) Append(_ context.Context, now time.Time, b storage.Batch) ([]storage.Appended, error) {
	for i := range b.Marks {
		if err := b.Marks[i].Check(); err != nil {
			return nil, err
		}
	}
	out := make([]storage.Appended, len(b.Rows))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range b.Rows {
		out[i] = s.append(now, &b.Rows[i], b.Quota)
	}
	for _, m := range b.Marks {
		if m.Value == nil {
			delete(s.marks, m.Key)
		} else {
			s.marks[m.Key] = append([]byte{}, m.Value...)
		}
	}
	return out, nil
}

func (s *queues) append(now time.Time, a *storage.Append, quota storage.Quota) storage.Appended {
	if err := a.Check(); err != nil {
		return storage.Appended{Err: err}
	}
	q := s.queues[a.Queue]
	if q == nil {
		q = &queue{ids: make(map[[16]byte]uint64), last: uint64(max(now.UnixMicro(), 0))}
		s.queues[a.Queue] = q
	}
	if pos, ok := q.ids[a.ID]; ok {
		i := q.find(pos)
		if now.Before(q.rows[i].Expires) {
			return storage.Appended{Position: pos, Duplicate: true}
		}
		q.remove(func(e *storage.Envelope) bool { return e.Position == pos })
	}
	size := uint64(len(a.Payload))
	full := func() bool {
		return quota.Messages > 0 && uint64(len(q.rows)) >= quota.Messages ||
			quota.Bytes > 0 && q.bytes+size > quota.Bytes
	}
	if full() {
		if q.remove(func(e *storage.Envelope) bool { return !now.Before(e.Expires) }); full() {
			return storage.Appended{Err: storage.ErrFull}
		}
	}
	q.last++
	q.rows = append(q.rows, storage.Envelope{
		Position: q.last, ID: a.ID, Payload: append([]byte{}, a.Payload...), Expires: a.Expires,
	})
	q.ids[a.ID] = q.last
	q.bytes += size
	return storage.Appended{Position: q.last}
}

// find gives the index of the first row at or after a position.
func (q *queue) find(pos uint64) int {
	return sort.Search(len(q.rows), func(i int) bool { return q.rows[i].Position >= pos })
}

func (q *queue) remove(gone func(*storage.Envelope) bool) int {
	before := len(q.rows)
	q.rows = slices.DeleteFunc(q.rows, func(e storage.Envelope) bool {
		if !gone(&e) {
			return false
		}
		delete(q.ids, e.ID)
		q.bytes -= uint64(len(e.Payload))
		return true
	})
	return before - len(q.rows)
}

func (s *queues) Read(_ context.Context, now time.Time, name string, after uint64, page storage.Page) ([]storage.Envelope, error) {
	if err := storage.CheckQueue(name); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[name]
	if q == nil || after == ^uint64(0) {
		return nil, nil
	}
	var out []storage.Envelope
	for i, bytes := q.find(after+1), 0; i < len(q.rows); i++ {
		e := q.rows[i]
		if !now.Before(e.Expires) {
			continue
		}
		if len(out) > 0 && (page.Messages > 0 && len(out) >= page.Messages || page.Bytes > 0 && bytes >= page.Bytes) {
			break
		}
		bytes += len(e.Payload)
		e.Payload = append([]byte{}, e.Payload...)
		out = append(out, e)
	}
	return out, nil
}

func (s *queues) Done(_ context.Context, done []storage.Done) error {
	for i := range done {
		if err := done[i].Check(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range done {
		if q := s.queues[d.Queue]; q != nil {
			q.remove(func(e *storage.Envelope) bool {
				return e.Position <= d.Cursor || slices.ContainsFunc(d.Ranges, func(r [2]uint64) bool {
					return r[0] <= e.Position && e.Position <= r[1]
				})
			})
		}
	}
	return nil
}

func (s *queues) Depths(_ context.Context, names []string) ([]storage.Depth, error) {
	out := make([]storage.Depth, len(names))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, n := range names {
		if q := s.queues[n]; q != nil {
			out[i] = storage.Depth{Messages: uint64(len(q.rows)), Bytes: q.bytes}
		}
	}
	return out, nil
}

func (s *queues) Marks(_ context.Context, keys []string) ([][]byte, error) {
	out := make([][]byte, len(keys))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, k := range keys {
		if v, ok := s.marks[k]; ok {
			out[i] = append([]byte{}, v...)
		}
	}
	return out, nil
}

func (s *queues) Drop(_ context.Context, name string) (uint64, error) {
	if err := storage.CheckQueue(name); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[name]
	if q == nil {
		return 0, nil
	}
	// The queue itself stays: its positions go on.
	return uint64(q.remove(func(*storage.Envelope) bool { return true })), nil
}

func (s *queues) Purge(_ context.Context, now time.Time, limit int) (int, error) {
	n := 0
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.queues {
		n += q.remove(func(e *storage.Envelope) bool {
			if limit <= 0 || now.Before(e.Expires) {
				return false
			}
			limit--
			return true
		})
	}
	return n, nil
}
