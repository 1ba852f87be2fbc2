package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// queues implements storage.Queues.
type queues store

// page bounds a Read that names no bound.
const (
	pageMessages = 1024
	pageBytes    = 32 << 20
)

// readRows takes rows until the page's bytes are exceeded: the sum is of the rows
// before, so that at least one comes. The bounds are subqueries, which are answered once,
// so that the primary key is gone along from there.
const readRows = `SELECT position, id, payload, expires FROM (
	SELECT position, id, payload, expires, sum(octet_length(payload)) OVER (ORDER BY position) - octet_length(payload) AS before
	FROM (
		SELECT position, id, payload, expires FROM message
		WHERE queue = (SELECT no FROM queue WHERE name = $1)
		AND position > greatest($2::bigint, (SELECT done FROM queue WHERE name = $1)) AND expires > $3
		ORDER BY position LIMIT $4
	) AS page
) AS summed WHERE before < $5 ORDER BY position`

// Read implements storage.Queues.
func (q *queues) Read(ctx context.Context, now time.Time, queue string, after uint64, limit storage.Page) ([]storage.Envelope, error) {
	if err := storage.CheckQueue(queue); err != nil {
		return nil, err
	}
	if limit.Messages <= 0 {
		limit.Messages = pageMessages
	}
	if limit.Bytes <= 0 {
		limit.Bytes = pageBytes
	}
	ctx, cancel := (*store)(q).within(ctx)
	defer cancel()
	rows, err := q.pool.Query(ctx, readRows, []byte(queue), signed(after), now.UnixMicro(), limit.Messages, limit.Bytes)
	if err != nil {
		return nil, plain("read", err)
	}
	defer rows.Close()
	var out []storage.Envelope
	for rows.Next() {
		var (
			e        storage.Envelope
			position int64
			expires  int64
		)
		if err := rows.Scan(&position, &e.ID, &e.Payload, &expires); err != nil {
			return nil, plain("read", err)
		}
		e.Position, e.Expires = uint64(position), time.UnixMicro(expires).UTC()
		out = append(out, e)
	}
	return out, plain("read", rows.Err())
}

// signed brings a position into the range of the column; there are none above.
func signed(position uint64) int64 { return int64(min(position, 1<<63-1)) }

// Done implements storage.Queues. Losing it costs a repetition, so the commit does
// not wait for the disk.
func (q *queues) Done(ctx context.Context, done []storage.Done) error {
	lanes := map[int][]storage.Done{}
	for _, d := range done {
		if err := d.Check(); err != nil {
			return err
		}
		// One transaction a lane, so that it waits for that lane's batch alone.
		l := storage.Lane(d.Queue, laneCount)
		lanes[l] = append(lanes[l], d)
	}
	ctx, cancel := (*store)(q).within(ctx)
	defer cancel()
	for _, l := range lanes {
		if err := q.done(ctx, l); err != nil {
			return plain("done", err)
		}
	}
	return nil
}

const (
	// lockQueues locks rows in the order of their names: the order of every other
	// transaction, so that none waits for another in a circle.
	lockQueues = `SELECT name, no, last, done FROM queue WHERE name = ANY($1) ORDER BY name FOR UPDATE`
	// deleteRanges removes rows, takes them off their queues' counts and notes up to
	// where the queues are done with.
	deleteRanges = `WITH gone AS (
		DELETE FROM message AS m USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS r (queue, low, high)
		WHERE m.queue = r.queue AND m.position BETWEEN r.low AND r.high
		RETURNING m.queue, octet_length(m.payload) AS bytes
	), summed AS (SELECT queue, count(*) AS messages, sum(bytes) AS bytes FROM gone GROUP BY queue),
	done AS (SELECT queue, max(done) AS done FROM unnest($1::bigint[], $4::bigint[]) AS n (queue, done) GROUP BY queue)
	UPDATE queue AS q SET messages = greatest(q.messages - s.messages, 0), bytes = greatest(q.bytes - s.bytes, 0), done = greatest(q.done, n.done)
	FROM summed AS s JOIN done AS n USING (queue) WHERE q.no = s.queue`
)

func (q *queues) done(ctx context.Context, done []storage.Done) error {
	names := make([][]byte, len(done))
	for i, d := range done {
		names[i] = []byte(d.Queue)
	}
	return pgx.BeginFunc(ctx, q.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
			return err
		}
		locked, err := lock(ctx, tx, names)
		if err != nil {
			return err
		}
		var queue, low, high, upTo []int64
		for _, d := range done {
			l, ok := locked[d.Queue]
			if !ok {
				continue
			}
			add := func(from, to, done int64) {
				queue, low, high, upTo = append(queue, l.no), append(low, from), append(high, to), append(upTo, done)
			}
			if c := signed(d.Cursor); c > l.done {
				// What is not given out yet may come below a cursor, and is not done with.
				add(l.done+1, c, min(c, l.last))
			}
			for _, r := range d.Ranges {
				add(signed(r[0]), signed(r[1]), 0)
			}
		}
		if len(queue) == 0 {
			return nil
		}
		_, err = tx.Exec(ctx, deleteRanges, queue, low, high, upTo)
		return err
	})
}

// locked is a queue whose row a transaction has locked.
type locked struct{ no, last, done int64 }

// lock locks queues and gives them by name.
func lock(ctx context.Context, tx pgx.Tx, names [][]byte) (map[string]locked, error) {
	rows, err := tx.Query(ctx, lockQueues, names)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[string]locked, len(names))
	for rows.Next() {
		var name []byte
		var l locked
		if err := rows.Scan(&name, &l.no, &l.last, &l.done); err != nil {
			return nil, err
		}
		out[string(name)] = l
	}
	return out, rows.Err()
}

const (
	depthsOf = `SELECT name, messages, bytes FROM queue WHERE name = ANY($1)`
	marksOf  = `SELECT key, value FROM mark WHERE key = ANY($1)`
)

// Depths implements storage.Queues. The counts include expired rows that Purge has
// not removed yet.
func (q *queues) Depths(ctx context.Context, names []string) ([]storage.Depth, error) {
	keys := make([][]byte, len(names))
	place := make(map[string][]int, len(names))
	for i, n := range names {
		if err := storage.CheckQueue(n); err != nil {
			return nil, err
		}
		keys[i] = []byte(n)
		place[n] = append(place[n], i)
	}
	ctx, cancel := (*store)(q).within(ctx)
	defer cancel()
	rows, err := q.pool.Query(ctx, depthsOf, keys)
	if err != nil {
		return nil, plain("depths", err)
	}
	defer rows.Close()
	out := make([]storage.Depth, len(names))
	for rows.Next() {
		var name []byte
		var messages, bytes int64
		if err := rows.Scan(&name, &messages, &bytes); err != nil {
			return nil, plain("depths", err)
		}
		for _, i := range place[string(name)] {
			out[i] = storage.Depth{Messages: uint64(messages), Bytes: uint64(bytes)}
		}
	}
	return out, plain("depths", rows.Err())
}

// Marks implements storage.Queues.
func (q *queues) Marks(ctx context.Context, keys []string) ([][]byte, error) {
	names := make([][]byte, len(keys))
	for i, k := range keys {
		if len(k) == 0 || len(k) > storage.MaxMarkKey {
			return nil, &storage.Error{Kind: sdk.Invalid, Text: "mark key of no or too many bytes"}
		}
		names[i] = []byte(k)
	}
	ctx, cancel := (*store)(q).within(ctx)
	defer cancel()
	rows, err := q.pool.Query(ctx, marksOf, names)
	if err != nil {
		return nil, plain("marks", err)
	}
	defer rows.Close()
	found := map[string][]byte{}
	for rows.Next() {
		var key, value []byte
		if err := rows.Scan(&key, &value); err != nil {
			return nil, plain("marks", err)
		}
		found[string(key)] = value
	}
	out := make([][]byte, len(keys))
	for i, k := range keys {
		out[i] = found[k]
	}
	return out, plain("marks", rows.Err())
}

// Drop implements storage.Queues. The queue's own row stays: positions of a queue
// never begin again.
func (q *queues) Drop(ctx context.Context, queue string) (uint64, error) {
	if err := storage.CheckQueue(queue); err != nil {
		return 0, err
	}
	ctx, cancel := (*store)(q).within(ctx)
	defer cancel()
	var n uint64
	err := pgx.BeginFunc(ctx, q.pool, func(tx pgx.Tx) error {
		locked, err := lock(ctx, tx, [][]byte{[]byte(queue)})
		if err != nil || len(locked) == 0 {
			return err
		}
		no := locked[queue].no
		tag, err := tx.Exec(ctx, "DELETE FROM message WHERE queue = $1", no)
		if err != nil {
			return err
		}
		n = uint64(tag.RowsAffected())
		_, err = tx.Exec(ctx, "UPDATE queue SET messages = 0, bytes = 0, done = last WHERE no = $1", no)
		return err
	})
	return n, plain("drop", err)
}

// expiredQueues finds where there is something to purge.
const expiredQueues = `SELECT DISTINCT q.name FROM (
	SELECT queue FROM message WHERE expires <= $1 ORDER BY expires LIMIT $2
) AS m JOIN queue AS q ON q.no = m.queue ORDER BY q.name`

const deleteExpired = `WITH old AS (
	SELECT ctid FROM message WHERE queue = ANY($1) AND expires <= $2 ORDER BY queue, position LIMIT $3
), gone AS (
	DELETE FROM message WHERE ctid = ANY(ARRAY(SELECT ctid FROM old)) RETURNING queue, octet_length(payload) AS bytes
), summed AS (SELECT queue, count(*) AS messages, sum(bytes) AS bytes FROM gone GROUP BY queue),
updated AS (
	UPDATE queue AS q SET messages = greatest(q.messages - s.messages, 0), bytes = greatest(q.bytes - s.bytes, 0)
	FROM summed AS s WHERE q.no = s.queue
) SELECT count(*) FROM gone`

// Purge implements storage.Queues.
func (q *queues) Purge(ctx context.Context, now time.Time, limit int) (int, error) {
	ctx, cancel := (*store)(q).within(ctx)
	defer cancel()
	n := 0
	err := pgx.BeginFunc(ctx, q.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, expiredQueues, now.UnixMicro(), limit)
		if err != nil {
			return err
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil || len(names) == 0 {
			return err
		}
		locked, err := lock(ctx, tx, names)
		if err != nil {
			return err
		}
		all := make([]int64, 0, len(locked))
		for _, l := range locked {
			all = append(all, l.no)
		}
		slices.Sort(all)
		return tx.QueryRow(ctx, deleteExpired, all, now.UnixMicro(), limit).Scan(&n)
	})
	return n, plain("purge", err)
}
