package postgres

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/sdk/storage"
)

// laneCount is how finely Done is split; a multiple of the plugin's lanes.
const laneCount = 4

const (
	// takeQueues locks a batch's queues in the order of their names, counts its
	// rows in and answers what they were before.
	//
	// Positions are above the clock and above the floor of this history of the database
	// (timeline.go): a device that knew what this one was before has seen none of them.
	takeQueues = `INSERT INTO queue AS q (name, last, messages, bytes)
	SELECT name, greatest(` + clock + `, $4::bigint) + messages, messages, bytes
	FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS n (name, messages, bytes) ORDER BY name
	ON CONFLICT (name) DO UPDATE SET last = greatest(q.last, ` + clock + `, $4::bigint) + excluded.messages, messages = q.messages + excluded.messages, bytes = q.bytes + excluded.bytes
	RETURNING name, no, last, messages, bytes`
	// findRows looks for rows that are there already.
	findRows = `SELECT n.i, m.position FROM unnest($1::bytea[], $2::uuid[], $3::int[]) AS n (name, id, i)
	JOIN queue AS q ON q.name = n.name JOIN message AS m ON m.queue = q.no AND m.id = n.id WHERE m.expires > $4`
	putMarks = `INSERT INTO mark (key, value) SELECT * FROM unnest($1::bytea[], $2::bytea[]) AS n (key, value) ORDER BY key
	ON CONFLICT (key) DO UPDATE SET value = excluded.value`
	lockMarks = `SELECT FROM mark WHERE key = ANY($1) ORDER BY key FOR UPDATE`
	dropMarks = `DELETE FROM mark WHERE key IN (SELECT key FROM mark WHERE key = ANY($1) ORDER BY key FOR UPDATE)`
	// expiredRows counts what does not count any more, where the counts say that a quota
	// may be used up: there are few of them, and a whole queue of the others.
	expiredRows = `SELECT count(*), coalesce(sum(octet_length(payload)), 0) FROM message WHERE queue = $1 AND expires <= $2`
	setCounts   = `UPDATE queue SET messages = $2, bytes = $3 WHERE no = $1`
)

// taken is one queue of a batch.
type taken struct {
	no, next        int64 // next is the last position given out before this batch
	messages, bytes int64 // rows and bytes before this batch
	rows            []int // of the batch, in order
	size            int64
	changed         bool // not all its rows went in: the counts must be set
}

// Append implements storage.Queues.
func (q *queues) Append(ctx context.Context, now time.Time, b storage.Batch) ([]storage.Appended, error) {
	ctx, cancel := (*store)(q).within(ctx)
	defer cancel()
	a := &appending{now: now, batch: b, out: make([]storage.Appended, len(b.Rows)), queues: map[string]*taken{}}
	if err := a.sort(); err != nil {
		return nil, err
	}
	if len(a.queues) == 0 && len(b.Marks) == 0 {
		return a.out, nil
	}
	err := (*store)(q).write(ctx, q.appends, func(tx pgx.Tx, floor int64) error {
		a.floor = floor
		return a.run(ctx, tx)
	})
	if err != nil {
		return nil, plain("append", err)
	}
	return a.out, nil
}

// appending is one Append under way.
type appending struct {
	now    time.Time
	batch  storage.Batch
	out    []storage.Appended
	queues map[string]*taken
	names  []string
	insert []int // rows that go in, in order
	floor  int64 // all positions are above it
}

// sort checks the rows and groups them by queue.
func (a *appending) sort() error {
	for i := range a.batch.Marks {
		if err := a.batch.Marks[i].Check(); err != nil {
			return err
		}
	}
	for i := range a.batch.Rows {
		r := &a.batch.Rows[i]
		if err := r.Check(); err != nil {
			a.out[i].Err = err
			continue
		}
		t := a.queues[r.Queue]
		if t == nil {
			t = &taken{}
			a.queues[r.Queue] = t
		}
		t.rows = append(t.rows, i)
		t.size += int64(len(r.Payload))
	}
	a.names = slices.Sorted(maps.Keys(a.queues))
	return nil
}

func (a *appending) run(ctx context.Context, tx pgx.Tx) error {
	if len(a.names) > 0 {
		if err := a.take(ctx, tx); err != nil {
			return err
		}
		for _, name := range a.names {
			if err := a.choose(ctx, tx, a.queues[name]); err != nil {
				return err
			}
		}
		if err := a.copy(ctx, tx); err != nil {
			return err
		}
	}
	return a.finish(ctx, tx)
}

// take locks the queues and finds the rows that are there already: one round trip.
func (a *appending) take(ctx context.Context, tx pgx.Tx) error {
	var (
		names  = make([][]byte, 0, len(a.names))
		counts = make([]int64, 0, len(a.names))
		sizes  = make([]int64, 0, len(a.names))
		rows   = make([][]byte, 0, len(a.batch.Rows))
		ids    = make([][16]byte, 0, len(a.batch.Rows))
		places = make([]int32, 0, len(a.batch.Rows))
	)
	for _, name := range a.names {
		t := a.queues[name]
		names, counts, sizes = append(names, []byte(name)), append(counts, int64(len(t.rows))), append(sizes, t.size)
		for _, i := range t.rows {
			rows, ids, places = append(rows, []byte(name)), append(ids, a.batch.Rows[i].ID), append(places, int32(i))
		}
	}
	var p pgx.Batch
	p.Queue(takeQueues, names, counts, sizes, a.floor).Query(func(r pgx.Rows) error {
		for r.Next() {
			var name []byte
			var no, last, messages, bytes int64
			if err := r.Scan(&name, &no, &last, &messages, &bytes); err != nil {
				return err
			}
			t := a.queues[string(name)]
			n := int64(len(t.rows))
			t.no, t.next, t.messages, t.bytes = no, last-n, messages-n, bytes-t.size
		}
		return r.Err()
	})
	// READ COMMITTED: this statement sees what was committed before the locks came.
	p.Queue(findRows, rows, ids, places, a.now.UnixMicro()).Query(func(r pgx.Rows) error {
		for r.Next() {
			var i int32
			var position int64
			if err := r.Scan(&i, &position); err != nil {
				return err
			}
			a.out[i] = storage.Appended{Position: uint64(position), Duplicate: true}
		}
		return r.Err()
	})
	return tx.SendBatch(ctx, &p).Close()
}

// choose decides about each row of a queue: there already, full, or in.
func (a *appending) choose(ctx context.Context, tx pgx.Tx, t *taken) error {
	seen := map[[16]byte]int{}
	messages, bytes := t.messages, t.bytes
	if a.over(messages+int64(len(t.rows)), bytes+t.size) {
		var over, size int64
		if err := tx.QueryRow(ctx, expiredRows, t.no, a.now.UnixMicro()).Scan(&over, &size); err != nil {
			return err
		}
		messages, bytes = messages-over, bytes-size
	}
	for _, i := range t.rows {
		r := &a.batch.Rows[i]
		first, again := seen[r.ID]
		switch {
		case a.out[i].Duplicate:
			t.changed = true
		case again:
			a.out[i], t.changed = a.out[first], true
			a.out[i].Duplicate = a.out[i].Err == nil
		case a.over(messages+1, bytes+int64(len(r.Payload))):
			a.out[i].Err, t.changed = storage.ErrFull, true
			seen[r.ID] = i
		default:
			messages, bytes = messages+1, bytes+int64(len(r.Payload))
			t.next++
			a.out[i].Position = uint64(t.next)
			a.insert = append(a.insert, i)
			seen[r.ID] = i
			t.messages, t.bytes = t.messages+1, t.bytes+int64(len(r.Payload))
		}
	}
	return nil
}

func (a *appending) over(messages, bytes int64) bool {
	q := a.batch.Quota
	return q.Messages > 0 && uint64(messages) > q.Messages || q.Bytes > 0 && uint64(bytes) > q.Bytes
}

var messageColumns = []string{"queue", "position", "id", "expires", "payload"}

// copy writes the rows.
func (a *appending) copy(ctx context.Context, tx pgx.Tx) error {
	if len(a.insert) == 0 {
		return nil
	}
	next := 0
	row := make([]any, len(messageColumns))
	n, err := tx.CopyFrom(ctx, pgx.Identifier{"message"}, messageColumns, pgx.CopyFromFunc(func() ([]any, error) {
		if next == len(a.insert) {
			return nil, nil
		}
		i := a.insert[next]
		r := &a.batch.Rows[i]
		row[0], row[1], row[2], row[3], row[4] = a.queues[r.Queue].no, int64(a.out[i].Position), r.ID, r.Expires.UnixMicro(), bytesOf(r.Payload)
		next++
		return row, nil
	}))
	if err == nil && n != int64(len(a.insert)) {
		err = errors.New("the server stored fewer rows than it was given")
	}
	return err
}

// bytesOf keeps an empty payload from becoming NULL.
func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// finish sets what the optimistic counts got wrong and stores the marks.
func (a *appending) finish(ctx context.Context, tx pgx.Tx) error {
	var p pgx.Batch
	for _, name := range a.names {
		if t := a.queues[name]; t.changed {
			p.Queue(setCounts, t.no, t.messages, t.bytes)
		}
	}
	var put, drop, values [][]byte
	last := map[string]int{}
	for i, m := range a.batch.Marks {
		last[m.Key] = i // of two marks with one key the later counts
	}
	for i, m := range a.batch.Marks {
		switch {
		case last[m.Key] != i:
		case m.Value == nil:
			drop = append(drop, []byte(m.Key))
		default:
			put, values = append(put, []byte(m.Key)), append(values, m.Value)
		}
	}
	if len(drop) > 0 && len(put) > 0 {
		// One order for both, so that nobody waits for another in a circle.
		p.Queue(lockMarks, slices.Concat(put, drop))
	}
	if len(put) > 0 {
		p.Queue(putMarks, put, values)
	}
	if len(drop) > 0 {
		p.Queue(dropMarks, drop)
	}
	if p.Len() == 0 {
		return nil
	}
	return tx.SendBatch(ctx, &p).Close()
}
