package sqlite

import (
	"context"
	"math"
	"math/bits"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// queues implements storage.Queues: the rules, over an engine.
type queues struct {
	*index
	// room refuses what the disk has no space for.
	room func(bytes int) error
}

// Append implements storage.Queues.
func (s *queues) Append(ctx context.Context, now time.Time, b storage.Batch) ([]storage.Appended, error) {
	if err := ctx.Err(); err != nil {
		return nil, unavailable("append", err)
	}
	var mask uint64
	for i := range b.Marks {
		if err := b.Marks[i].Check(); err != nil {
			return nil, err
		}
	}
	out := make([]storage.Appended, len(b.Rows))
	for i := range b.Rows {
		if out[i].Err = b.Rows[i].Check(); out[i].Err == nil {
			mask |= 1 << storage.Lane(b.Rows[i].Queue, stripes)
		}
	}
	for m := mask; m != 0; m &= m - 1 {
		s.stripes[bits.TrailingZeros64(m)].appending.Lock()
	}
	defer func() {
		for m := mask; m != 0; m &= m - 1 {
			s.stripes[bits.TrailingZeros64(m)].appending.Unlock()
		}
	}()
	a := appender{queues: s, now: clock(now), quota: b.Quota}
	a.change.puts = make([]put, 0, len(b.Rows))
	a.change.marks = b.Marks
	err := a.place(b.Rows, out)
	if err == nil {
		err = a.commit()
	}
	a.settle(err == nil)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// appender is one Append under way.
type appender struct {
	*queues
	now     uint32
	quota   storage.Quota
	change  change
	touched []*queue
	highest uint64
}

func (a *appender) commit() error {
	if a.change.empty() {
		return nil
	}
	if err := a.room(a.change.size()); err != nil {
		return err
	}
	if err := a.persist(a.highest); err != nil {
		return err
	}
	return a.engine.write(&a.change, true)
}

// place decides each row: duplicate, full, or a position.
func (a *appender) place(rows []storage.Append, out []storage.Appended) error {
	for i := range rows {
		if out[i].Err != nil {
			continue
		}
		s := a.stripe(rows[i].Queue)
		s.mu.Lock()
		q, err := a.load(s, rows[i].Queue)
		if err == nil {
			out[i], err = a.one(q, &rows[i])
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *appender) one(q *queue, r *storage.Append) (storage.Appended, error) {
	i, err := a.lookup(q, r.ID, a.change.puts)
	if err != nil {
		return storage.Appended{}, err
	}
	if i >= 0 {
		// A row that came in this batch, dead on arrival: one will do.
		old := q.live()[i]
		if old.expires > a.now || q.pending != 0 && old.position >= q.pending {
			return storage.Appended{Position: old.position, Duplicate: true}, nil
		}
		a.touch(q)
		a.change.dels = append(a.change.dels, at{q.name, old.position})
		q.remove(i, i+1)
		a.held.Add(-1)
	}
	if a.full(q, len(r.Payload)) {
		a.touch(q)
		a.held.Add(-int64(q.takeExpired(a.now, math.MaxInt, &a.change)))
		if a.full(q, len(r.Payload)) {
			return storage.Appended{Err: storage.ErrFull}, nil
		}
	}
	a.touch(q)
	n := row{position: q.last + 1, id: r.ID, expires: seconds(r.Expires), size: uint32(len(r.Payload))}
	q.add(a.slot(&n))
	a.held.Add(1)
	a.highest = max(a.highest, n.position)
	a.change.puts = append(a.change.puts, put{q.name, n, r.Payload})
	if b := bucketOf(n.expires); b != q.bucket {
		q.bucket = b
		a.change.notes = append(a.change.notes, note{b, q.name})
	}
	return storage.Appended{Position: n.position}, nil
}

func (a *appender) full(q *queue, size int) bool {
	return a.quota.Messages > 0 && uint64(q.count()) >= a.quota.Messages ||
		a.quota.Bytes > 0 && q.bytes+uint64(size) > a.quota.Bytes
}

// touch marks a queue as part of this append.
func (a *appender) touch(q *queue) {
	if q.pending == 0 {
		q.pending = q.last + 1
		a.touched = append(a.touched, q)
	}
}

// settle ends the append. After a failure nothing is known of the queues.
func (a *appender) settle(ok bool) {
	for _, q := range a.touched {
		s := a.stripe(q.name)
		if !ok {
			s.deletions.Lock()
		}
		s.mu.Lock()
		q.pending = 0
		if ok {
			a.shrink(s)
		} else {
			a.forget(s, q)
		}
		s.mu.Unlock()
		if !ok {
			s.deletions.Unlock()
		}
	}
}

// Read implements storage.Queues.
func (s *queues) Read(ctx context.Context, now time.Time, name string, after uint64, page storage.Page) ([]storage.Envelope, error) {
	if err := storage.CheckQueue(name); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, unavailable("read", err)
	}
	until := uint64(math.MaxUint64)
	st := s.stripe(name)
	st.mu.Lock()
	if q := st.queues[name]; q != nil {
		// What is known spares the engine a walk over deleted rows, and keeps
		// rows that are not yet durable out of sight.
		rows := q.live()[:q.settled()]
		if i := q.find(min(after, math.MaxUint64-1) + 1); i < len(rows) {
			after, until = rows[i].position-1, rows[len(rows)-1].position
		} else {
			st.mu.Unlock()
			return nil, nil
		}
	}
	st.mu.Unlock()
	if after == math.MaxUint64 {
		return nil, nil
	}
	return s.engine.read(name, after, until, clock(now), page)
}

// Done implements storage.Queues.
func (s *queues) Done(ctx context.Context, done []storage.Done) error {
	if err := ctx.Err(); err != nil {
		return unavailable("done", err)
	}
	var mask uint64
	for i := range done {
		if err := done[i].Check(); err != nil {
			return err
		}
		mask |= 1 << storage.Lane(done[i].Queue, stripes)
	}
	var c change
	if err := s.delete(done, mask, &c); err != nil {
		s.mend(&c)
		return err
	}
	return nil
}

// delete takes what is done out of the index, into c, and out of the store.
func (s *queues) delete(done []storage.Done, mask uint64, c *change) error {
	for m := mask; m != 0; m &= m - 1 {
		s.stripes[bits.TrailingZeros64(m)].deletions.RLock()
	}
	defer func() {
		for m := mask; m != 0; m &= m - 1 {
			s.stripes[bits.TrailingZeros64(m)].deletions.RUnlock()
		}
	}()
	for i := range done {
		if err := s.one(&done[i], c); err != nil {
			return err
		}
	}
	if c.empty() {
		return nil
	}
	return s.engine.write(c, false)
}

func (s *queues) one(d *storage.Done, c *change) error {
	st := s.stripe(d.Queue)
	st.mu.Lock()
	defer st.mu.Unlock()
	if q := st.queues[d.Queue]; q != nil {
		before := q.count()
		q.take(0, d.Cursor, c)
		for _, r := range d.Ranges {
			q.take(r[0], r[1], c)
		}
		s.held.Add(int64(q.count() - before))
		return nil
	}
	// Not in memory: under the lock, so that nobody reads it in meanwhile.
	err := s.engine.write(&change{cuts: st.cuts(d, s.floor.Load())}, false)
	if err != nil {
		delete(st.cursors, d.Queue)
	}
	return err
}

// cuts are the ranges of a queue that is not in memory; its rows lie at or below
// the floor, later ones above. mu is held.
func (s *stripe) cuts(d *storage.Done, floor uint64) []cut {
	const most = 64 // cursors kept
	c := make([]cut, 0, len(d.Ranges)+1)
	if from := s.cursors[d.Queue]; d.Cursor > from {
		c = append(c, cut{queue: d.Queue, from: from + 1, to: d.Cursor})
		if from == 0 && len(s.cursors) >= most {
			clear(s.cursors)
		}
		s.cursors[d.Queue] = min(d.Cursor, floor)
	}
	for _, r := range d.Ranges {
		c = append(c, cut{queue: d.Queue, from: r[0], to: r[1]})
	}
	return c
}

// take moves the rows from..to out of the state and into c.
func (q *queue) take(from, to uint64, c *change) {
	if to == 0 || from > to {
		return
	}
	i, j := q.find(from), q.settled()
	if to < math.MaxUint64 {
		j = min(j, q.find(to+1))
	}
	if i >= j {
		return
	}
	rows := q.live()[i:j]
	if len(rows) >= manyRows {
		x := cut{queue: q.name, from: rows[0].position, to: rows[len(rows)-1].position}
		if len(rows) < manyCut {
			x.rows = make([]uint64, len(rows))
			for k := range rows {
				x.rows[k] = rows[k].position
			}
		}
		c.cuts = append(c.cuts, x)
	} else {
		for _, r := range rows {
			c.dels = append(c.dels, at{q.name, r.position})
		}
	}
	q.remove(i, j)
}

// Depths implements storage.Queues.
func (s *queues) Depths(_ context.Context, names []string) ([]storage.Depth, error) {
	out := make([]storage.Depth, len(names))
	for i, n := range names {
		if err := storage.CheckQueue(n); err != nil {
			return nil, err
		}
		st := s.stripe(n)
		st.mu.Lock()
		q, err := s.load(st, n)
		if err == nil {
			out[i] = storage.Depth{Messages: uint64(q.count()), Bytes: q.bytes}
			s.shrink(st)
		}
		st.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Marks implements storage.Queues.
func (s *queues) Marks(_ context.Context, keys []string) ([][]byte, error) {
	for _, k := range keys {
		if err := (&storage.Mark{Key: k}).Check(); err != nil {
			return nil, err
		}
	}
	return s.engine.marks(keys)
}

// Drop implements storage.Queues.
func (s *queues) Drop(_ context.Context, name string) (uint64, error) {
	if err := storage.CheckQueue(name); err != nil {
		return 0, err
	}
	st := s.stripe(name)
	n, err := 0, error(nil)
	st.alone(func() { n, err = s.drop(st, name) })
	return uint64(n), err
}

func (s *queues) drop(st *stripe, name string) (int, error) {
	q, err := s.load(st, name)
	if err != nil || q.count() == 0 {
		return 0, err
	}
	n := q.count()
	if err := s.engine.write(&change{cuts: []cut{{queue: name, to: q.last}}}, true); err != nil {
		s.forget(st, q)
		return 0, err
	}
	q.remove(0, n)
	s.held.Add(-int64(n))
	return n, nil
}

// Purge implements storage.Queues: first queues in memory, exactly; then, by the
// notes of past buckets, queues that are not.
func (s *queues) Purge(ctx context.Context, now time.Time, limit int) (int, error) {
	t, n := clock(now), 0
	for i := range s.stripes {
		if n >= limit {
			return n, nil
		}
		k, err := s.purgeStripe(&s.stripes[i], t, limit-n)
		if n += k; err != nil {
			return n, err
		}
	}
	const atOnce = 64
	for n < limit && ctx.Err() == nil {
		notes, err := s.engine.due(bucketOf(t), atOnce)
		if err != nil || len(notes) == 0 {
			return n, err
		}
		for _, due := range notes {
			if n >= limit {
				return n, nil
			}
			k, err := s.purgeNote(due, t, limit-n)
			if n += k; err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// purged writes what a purge took, with the stripe's mu held, and gives that back.
func (s *queues) purged(st *stripe, c *change) (int, error) {
	n := len(c.dels)
	s.held.Add(-int64(n))
	err := error(nil)
	if !c.empty() {
		err = s.engine.write(c, false)
	}
	s.shrink(st)
	st.mu.Unlock()
	if err != nil {
		s.mend(c)
		return 0, err
	}
	return n, nil
}

func (s *queues) purgeStripe(st *stripe, now uint32, limit int) (int, error) {
	st.mu.Lock()
	var c change
	for _, q := range st.queues {
		if n := len(c.dels); n < limit {
			q.takeExpired(now, limit-n, &c)
		}
	}
	return s.purged(st, &c)
}

func (s *queues) purgeNote(due note, now uint32, limit int) (int, error) {
	st := s.stripe(due.queue)
	st.mu.Lock()
	q, err := s.load(st, due.queue)
	if err != nil {
		st.mu.Unlock()
		return 0, err
	}
	var c change
	if n := q.takeExpired(now, limit, &c); n < limit || q.earliest > now {
		c.paid = append(c.paid, due)
		if q.bucket == due.bucket {
			q.bucket = 0
		}
	}
	return s.purged(st, &c)
}
