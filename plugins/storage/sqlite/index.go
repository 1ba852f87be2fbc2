package sqlite

import (
	"hash/maphash"
	"math"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

const (
	stripes  = 64 // storage.Lane(queue, stripes): lanes that divide it share none
	few      = 16 // rows up to which fingerprints are compared one by one
	manyRows = 64 // deletions in a row that are one range for the engine
	overhead = 8  // what an empty queue counts against the budget, in rows
)

// index holds what is known of queues in use.
type index struct {
	engine  engine
	stripes [stripes]stripe
	budget  int64
	held    atomic.Int64 // rows and overheads in memory
	tick    atomic.Uint64
	// floor is above every position of queues that are not in memory.
	floor atomic.Uint64

	reserve  sync.Mutex
	reserved atomic.Uint64 // positions up to here are persisted as used

	seed maphash.Seed // so that nobody can aim at a fingerprint
}

type stripe struct {
	// appending is held through an Append; locked in ascending order, before the others.
	appending sync.Mutex
	// deletions is held, shared, from when rows are taken from queues until the engine
	// was told, and alone while a state is forgotten: read again in between, it would
	// hold the rows that are about to go. Locked in ascending order, before mu.
	deletions sync.RWMutex
	mu        sync.Mutex
	queues    map[string]*queue
	// cursors are how far queues that are not in memory were done last, so that
	// the next deletion begins there; any of them may be forgotten.
	cursors map[string]uint64
}

// slot is what the index keeps of a row: 24 bytes, and some more in prints.
type slot struct {
	position uint64
	expires  uint32
	size     uint32
	print    uint32 // of the id, never 0
}

// queue is guarded by its stripe's mu.
type queue struct {
	name   string
	last   uint64
	rows   []slot // by position, from head
	head   int
	prints prints // empty while there are few rows
	bytes  uint64
	bucket uint32 // noted last
	// pending is the first position of an append under way; 0 when none is.
	pending  uint64
	earliest uint32 // no row expires before
	used     uint64
}

// newIndex reads the bound of all positions. They begin at the time in microseconds at
// least: devices name the position up to which they have everything, and a store
// that began anew below it (another engine, a folder brought back from a backup)
// would give them messages that they believe to have.
func newIndex(e engine, budget int64, now time.Time) (*index, error) {
	high, err := e.high()
	if err != nil {
		return nil, err
	}
	high = max(high, uint64(max(now.UnixMicro(), 0)))
	x := &index{engine: e, budget: budget, seed: maphash.MakeSeed()}
	x.floor.Store(high)
	x.reserved.Store(high)
	for i := range x.stripes {
		x.stripes[i].queues = make(map[string]*queue)
		x.stripes[i].cursors = make(map[string]uint64)
	}
	return x, nil
}

func (x *index) stripe(queue string) *stripe { return &x.stripes[storage.Lane(queue, stripes)] }

// load gives a queue's state, read from the engine if need be. mu is held.
func (x *index) load(s *stripe, name string) (*queue, error) {
	q := s.queues[name]
	if q == nil {
		q = &queue{name: name, earliest: math.MaxUint32}
		ascending := true
		err := x.engine.scan(name, func(r row) {
			ascending = ascending && r.position > q.last
			q.add(x.slot(&r))
		})
		if err != nil {
			return nil, err
		}
		if !ascending {
			return nil, outOfOrder()
		}
		q.last = max(q.last, x.floor.Load())
		s.queues[name] = q
		x.held.Add(int64(len(q.rows) + overhead))
	}
	q.used = x.tick.Add(1)
	return q, nil
}

// forget drops a queue's state; the next use reads the store. deletions is held alone,
// mu as well.
func (x *index) forget(s *stripe, q *queue) {
	if s.queues[q.name] != q {
		return
	}
	delete(s.queues, q.name)
	x.held.Add(-int64(q.count() + overhead))
	x.lift(q.last)
}

// alone calls f with everything of a stripe to itself: no append or deletion is under way.
func (s *stripe) alone(f func()) {
	s.appending.Lock()
	defer s.appending.Unlock()
	s.deletions.Lock()
	defer s.deletions.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// mend forgets the queues of a deletion that failed: the index is without rows that the
// store still has.
func (x *index) mend(c *change) {
	names := make(map[string]struct{})
	for i := range c.dels {
		names[c.dels[i].queue] = struct{}{}
	}
	for i := range c.cuts {
		names[c.cuts[i].queue] = struct{}{}
	}
	for i := range c.paid {
		names[c.paid[i].queue] = struct{}{}
	}
	for name := range names {
		s := x.stripe(name)
		s.alone(func() {
			if q := s.queues[name]; q != nil {
				x.forget(s, q)
			}
		})
	}
}

// reset forgets all queues: the store may be back at an earlier state.
func (x *index) reset() {
	for i := range x.stripes {
		s := &x.stripes[i]
		s.alone(func() {
			for _, q := range s.queues {
				x.forget(s, q)
			}
			clear(s.cursors)
		})
	}
}

// shrink evicts from a stripe while the index is over its budget. mu is held.
func (x *index) shrink(s *stripe) {
	if x.held.Load() <= x.budget || !s.deletions.TryLock() {
		return
	}
	defer s.deletions.Unlock()
	for x.held.Load() > x.budget && len(s.queues) > 1 {
		var victim *queue
		n := 0
		for _, q := range s.queues { // Go starts at a random place
			if q.pending == 0 && (victim == nil || q.used < victim.used) {
				victim = q
			}
			if n++; n == 8 {
				break
			}
		}
		if victim == nil || victim.used+16 > x.tick.Load() {
			return
		}
		x.forget(s, victim)
	}
}

// persist makes sure that positions up to at least p are known to be used.
func (x *index) persist(p uint64) error {
	const block = 1 << 20
	if p <= x.reserved.Load() {
		return nil
	}
	x.reserve.Lock()
	defer x.reserve.Unlock()
	if p <= x.reserved.Load() {
		return nil
	}
	high := p + block
	if err := x.engine.write(&change{high: high}, true); err != nil {
		return err
	}
	x.reserved.Store(high)
	return nil
}

func (q *queue) count() int { return len(q.rows) - q.head }

// live are the rows, oldest first.
func (q *queue) live() []slot { return q.rows[q.head:] }

func (x *index) print(id *[16]byte) uint32 {
	return uint32(maphash.Bytes(x.seed, id[:])) | 1<<31
}

func (x *index) slot(r *row) slot {
	return slot{r.position, r.expires, r.size, x.print(&r.id)}
}

func (q *queue) add(r slot) {
	q.rows = append(q.rows, r)
	q.last = max(q.last, r.position)
	q.bytes += uint64(r.size)
	q.earliest = min(q.earliest, r.expires)
	switch {
	case q.prints.count > 0:
		q.prints.add(r.print)
	case q.count() > few:
		for _, r := range q.live() {
			q.prints.add(r.print)
		}
	}
}

// lookup finds a row by id; it answers its place among live or -1. Fingerprints
// leave a few candidates, mostly none; the engine knows their ids, and added those
// that have not been written yet.
func (x *index) lookup(q *queue, id [16]byte, added []put) (int, error) {
	f := x.print(&id)
	if q.prints.count > 0 && !q.prints.has(f) {
		return -1, nil
	}
	for i, r := range q.live() {
		if r.print != f {
			continue
		}
		have, err := x.id(q, r.position, added)
		if err != nil || have == id {
			return i, err
		}
	}
	return -1, nil
}

func (x *index) id(q *queue, position uint64, added []put) ([16]byte, error) {
	if q.pending != 0 && position >= q.pending {
		for i := range added {
			if added[i].position == position && added[i].queue == q.name {
				return added[i].id, nil
			}
		}
	}
	return x.engine.id(q.name, position)
}

// find gives the place among live of the first row at or after a position.
func (q *queue) find(position uint64) int {
	rows := q.live()
	if len(rows) == 0 || rows[0].position >= position {
		return 0
	}
	return sort.Search(len(rows), func(i int) bool { return rows[i].position >= position })
}

// settled is the number of rows that are not part of an append under way.
func (q *queue) settled() int {
	if q.pending == 0 {
		return q.count()
	}
	return q.find(q.pending)
}

// remove takes the rows [i,j) of live out of the state.
func (q *queue) remove(i, j int) {
	rows := q.live()
	for _, r := range rows[i:j] {
		q.bytes -= uint64(r.size)
		q.prints.remove(r.print)
	}
	if i == 0 {
		q.head += j
	} else {
		q.rows = slices.Delete(q.rows, q.head+i, q.head+j)
	}
	switch {
	case q.count() == 0:
		q.head, q.earliest, q.prints = 0, math.MaxUint32, prints{}
		if cap(q.rows) > 4*few {
			q.rows = nil
		}
		q.rows = q.rows[:0]
	case q.head > 4*few && q.head > len(q.rows)/2:
		q.rows = append(make([]slot, 0, 2*q.count()), q.live()...)
		q.head = 0
	}
}

// takeExpired takes at most limit expired rows out of the state and into c.
func (q *queue) takeExpired(now uint32, limit int, c *change) int {
	if q.earliest > now {
		return 0
	}
	n, settled, earliest := 0, q.settled(), uint32(math.MaxUint32)
	kept := q.rows[:q.head]
	for i, r := range q.live() {
		if r.expires <= now && i < settled && n < limit {
			c.dels = append(c.dels, at{q.name, r.position})
			q.bytes -= uint64(r.size)
			q.prints.remove(r.print)
			n++
			continue
		}
		earliest = min(earliest, r.expires)
		kept = append(kept, r)
	}
	q.rows, q.earliest = kept, earliest
	q.remove(0, 0)
	return n
}
