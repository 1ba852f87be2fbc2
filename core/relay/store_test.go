package relay

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

var errStore = errors.New("store: down")

// fakeStore is a full store in memory with faults: fail decides before each
// Append; after lets an Append take effect and still answer an error.
type fakeStore struct {
	mu     sync.Mutex
	queues map[string]*fakeQueue
	marks  map[string][]byte
	recs   map[storage.Key]storage.Record
	next   uint64
	fences map[string]storage.Route
	beats  map[string]storage.Beat
	noop   bool

	fail     func(b storage.Batch) error
	after    func() error
	readErr  func() error
	dirErr   func() error
	miscount int           // records more or fewer than asked for
	gate     chan struct{} // when set, Append waits for it
	quota    int
	appends  int
	maxBatch int
}

type fakeQueue struct {
	rows []storage.Envelope
	ids  map[[16]byte]uint64
	last uint64
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		queues: map[string]*fakeQueue{}, marks: map[string][]byte{}, recs: map[storage.Key]storage.Record{},
		fences: map[string]storage.Route{}, beats: map[string]storage.Beat{},
	}
}

func (s *fakeStore) store() storage.Store {
	return storage.Store{Queues: s, Directory: (*fakeDirectory)(s), Routes: (*fakeRoutes)(s), Presence: (*fakePresence)(s)}
}

func (s *fakeStore) queue(name string) *fakeQueue {
	q := s.queues[name]
	if q == nil {
		q = &fakeQueue{ids: map[[16]byte]uint64{}}
		s.queues[name] = q
	}
	return q
}

func (s *fakeStore) Append(ctx context.Context, now time.Time, b storage.Batch) ([]storage.Appended, error) {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.appends++
	s.maxBatch = max(s.maxBatch, len(b.Rows))
	if s.fail != nil {
		if err := s.fail(b); err != nil {
			return nil, err
		}
	}
	out := make([]storage.Appended, len(b.Rows))
	for i, r := range b.Rows {
		q := s.queue(r.Queue)
		if s.noop {
			q.last++
			out[i].Position = q.last
			continue
		}
		if pos, ok := q.ids[r.ID]; ok {
			out[i] = storage.Appended{Position: pos, Duplicate: true}
			continue
		}
		if s.quota > 0 && len(q.rows) >= s.quota {
			out[i].Err = storage.ErrFull
			continue
		}
		q.last += 1 + uint64(i%3) // gaps are allowed
		q.ids[r.ID] = q.last
		q.rows = append(q.rows, storage.Envelope{Position: q.last, ID: r.ID, Payload: slices.Clone(r.Payload), Expires: r.Expires})
		out[i].Position = q.last
	}
	for _, m := range b.Marks {
		s.marks[m.Key] = m.Value
	}
	if s.after != nil {
		if err := s.after(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *fakeStore) Read(_ context.Context, now time.Time, queue string, after uint64, max storage.Page) ([]storage.Envelope, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readErr != nil {
		if err := s.readErr(); err != nil {
			return nil, err
		}
	}
	var out []storage.Envelope
	n := 0
	for _, r := range s.queue(queue).rows {
		if r.Position <= after || !r.Expires.After(now) {
			continue
		}
		if len(out) == max.Messages || n > max.Bytes {
			break
		}
		n += len(r.Payload)
		r.Payload = slices.Clone(r.Payload)
		out = append(out, r)
	}
	return out, nil
}

func (s *fakeStore) Done(_ context.Context, list []storage.Done) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range list {
		q := s.queue(d.Queue)
		q.rows = slices.DeleteFunc(q.rows, func(e storage.Envelope) bool {
			gone := e.Position <= d.Cursor
			for _, r := range d.Ranges {
				gone = gone || e.Position >= r[0] && e.Position <= r[1]
			}
			if gone {
				delete(q.ids, e.ID)
			}
			return gone
		})
	}
	return nil
}

func (s *fakeStore) Depths(_ context.Context, queues []string) ([]storage.Depth, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]storage.Depth, len(queues))
	for i, q := range queues {
		out[i].Messages = uint64(len(s.queue(q).rows))
	}
	return out, nil
}

func (s *fakeStore) Marks(_ context.Context, keys []string) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([][]byte, len(keys))
	for i, k := range keys {
		out[i] = s.marks[k]
	}
	return out, nil
}

func (s *fakeStore) Drop(_ context.Context, queue string) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.queue(queue).rows)
	delete(s.queues, queue)
	return uint64(n), nil
}

func (s *fakeStore) Purge(_ context.Context, now time.Time, limit int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, q := range s.queues {
		q.rows = slices.DeleteFunc(q.rows, func(e storage.Envelope) bool {
			if n < limit && !e.Expires.After(now) {
				n++
				delete(q.ids, e.ID)
				return true
			}
			return false
		})
	}
	return n, nil
}

func (s *fakeStore) depth(queue string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue(queue).rows)
}

func (s *fakeStore) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

type fakeDirectory fakeStore

func (d *fakeDirectory) Get(_ context.Context, now time.Time, keys []storage.Key) ([]storage.Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dirErr != nil {
		if err := d.dirErr(); err != nil {
			return nil, err
		}
	}
	out := make([]storage.Record, len(keys))
	for i, k := range keys {
		out[i] = d.recs[k]
		out[i].Key = k
	}
	if d.miscount > 0 {
		out = append(out, make([]storage.Record, d.miscount)...)
	}
	return out[:len(out)+min(d.miscount, 0)], nil
}

func (d *fakeDirectory) List(_ context.Context, now time.Time, r storage.Range) ([]storage.Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []storage.Record
	for k, rec := range d.recs {
		if k.Kind == r.Kind && strings.HasPrefix(k.ID, r.Prefix) && k.ID > r.After {
			out = append(out, rec)
		}
	}
	slices.SortFunc(out, func(a, b storage.Record) int { return strings.Compare(a.ID, b.ID) })
	return out[:min(len(out), r.Limit)], nil
}

func (d *fakeDirectory) Commit(_ context.Context, now time.Time, w []storage.Write) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, x := range w {
		if have := d.recs[x.Key].Version; x.Expect != storage.AnyVersion && x.Expect != have {
			return &storage.ConflictError{Key: x.Key, Index: i, Version: have}
		}
	}
	for _, x := range w {
		if x.CheckOnly {
			continue
		}
		if x.Value == nil {
			delete(d.recs, x.Key)
			continue
		}
		d.next++
		d.recs[x.Key] = storage.Record{Key: x.Key, Version: d.next, Value: slices.Clone(x.Value), Expires: x.Expires}
	}
	return nil
}

func (d *fakeDirectory) Purge(context.Context, time.Time, int) (int, error) { return 0, nil }

type fakeRoutes fakeStore

func (r *fakeRoutes) Claim(_ context.Context, now time.Time, c []storage.Claim) ([]uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]uint64, len(c))
	for i, x := range c {
		f := max(r.fences[x.Device].Fence+1, uint64(now.UnixMilli()))
		r.fences[x.Device] = storage.Route{Device: x.Device, Node: x.Node, Session: x.Session, Fence: f}
		out[i] = f
	}
	return out, nil
}

func (r *fakeRoutes) Renew(_ context.Context, now time.Time, list []storage.Renewal) ([]bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]bool, len(list))
	for i, x := range list {
		out[i] = r.fences[x.Device].Fence <= x.Fence
		if out[i] && x.TTL > 0 { // a store that forgot takes it back
			r.fences[x.Device] = storage.Route{Device: x.Device, Node: x.Node, Session: x.Session, Fence: x.Fence}
		}
	}
	return out, nil
}

func (r *fakeRoutes) Lookup(_ context.Context, now time.Time, devices []string) ([]storage.Route, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]storage.Route, len(devices))
	for i, d := range devices {
		out[i] = r.fences[d]
	}
	return out, nil
}

type fakePresence fakeStore

func (p *fakePresence) Announce(_ context.Context, now time.Time, b []storage.Beat) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range b {
		p.beats[x.Device] = x
	}
	return nil
}

func (p *fakePresence) Beats(_ context.Context, now time.Time, devices []string) ([]storage.Beat, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]storage.Beat, len(devices))
	for i, d := range devices {
		out[i] = p.beats[d]
	}
	return out, nil
}
