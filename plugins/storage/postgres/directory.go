package postgres

import (
	"cmp"
	"context"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/sdk/storage"
)

// directory implements storage.Directory.
type directory store

const (
	getRecords = `SELECT n.i, r.version, r.expires, r.value
	FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS n (kind, id, i)
	JOIN record AS r ON r.kind = n.kind AND r.id = n.id
	WHERE r.expires IS NULL OR r.expires > $3`
	listRecords = `SELECT id, version, expires, value FROM record
	WHERE kind = $1 AND id > $2 AND id >= $3 AND ($4::bytea IS NULL OR id < $4) AND (expires IS NULL OR expires > $5)
	ORDER BY id LIMIT $6`
	purgeRecords = `DELETE FROM record WHERE (kind, id) IN (
	SELECT kind, id FROM record WHERE expires <= $1 ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED) AND expires <= $1`
)

// Get implements storage.Directory: one statement, so one snapshot.
func (d *directory) Get(ctx context.Context, now time.Time, keys []storage.Key) ([]storage.Record, error) {
	kinds, ids := make([]string, len(keys)), make([][]byte, len(keys))
	for i, k := range keys {
		if err := k.Check(); err != nil {
			return nil, err
		}
		kinds[i], ids[i] = k.Kind, []byte(k.ID)
	}
	ctx, cancel := (*store)(d).within(ctx)
	defer cancel()
	rows, err := d.pool.Query(ctx, getRecords, kinds, ids, now.UnixMicro())
	if err != nil {
		return nil, plain("get", err)
	}
	defer rows.Close()
	out := make([]storage.Record, len(keys))
	for i, k := range keys {
		out[i].Key = k
	}
	for rows.Next() {
		var (
			i, version int64
			expires    *int64
			value      []byte
		)
		if err := rows.Scan(&i, &version, &expires, &value); err != nil {
			return nil, plain("get", err)
		}
		fill(&out[i-1], version, expires, value)
	}
	return out, plain("get", rows.Err())
}

func fill(r *storage.Record, version int64, expires *int64, value []byte) {
	r.Version, r.Value = uint64(version), value
	if expires != nil {
		r.Expires = time.UnixMicro(*expires).UTC()
	}
}

// List implements storage.Directory.
func (d *directory) List(ctx context.Context, now time.Time, r storage.Range) ([]storage.Record, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	ctx, cancel := (*store)(d).within(ctx)
	defer cancel()
	var end []byte // NULL: no end
	if e, ok := prefixEnd(r.Prefix); ok {
		end = []byte(e)
	}
	rows, err := d.pool.Query(ctx, listRecords, r.Kind, []byte(r.After), []byte(r.Prefix), end, now.UnixMicro(), r.Limit)
	if err != nil {
		return nil, plain("list", err)
	}
	defer rows.Close()
	var out []storage.Record
	for rows.Next() {
		var (
			id, value []byte
			version   int64
			expires   *int64
		)
		if err := rows.Scan(&id, &version, &expires, &value); err != nil {
			return nil, plain("list", err)
		}
		rec := storage.Record{Key: storage.Key{Kind: r.Kind, ID: string(id)}}
		fill(&rec, version, expires, value)
		out = append(out, rec)
	}
	return out, plain("list", rows.Err())
}

// prefixEnd is the least string above all that begin with prefix.
func prefixEnd(prefix string) (string, bool) {
	b := []byte(prefix)
	for len(b) > 0 {
		if b[len(b)-1] < 0xff {
			b[len(b)-1]++
			return string(b), true
		}
		b = b[:len(b)-1]
	}
	return "", false
}

// manyWrites is where a Commit locks the table instead of its keys: the server's table
// of locks is bounded.
const manyWrites = 64

// lockOf is the advisory lock of a key. Two keys with one lock wait for each other,
// nothing worse.
func lockOf(schema uint64, k storage.Key) int64 {
	h := fnv.New64a()
	b := binary.BigEndian.AppendUint64(nil, schema)
	_, _ = h.Write(append(append(append(b, k.Kind...), 0), k.ID...)) // a hash never fails
	return int64(h.Sum64())
}

const readVersions = `SELECT n.i, r.version, coalesce(r.expires <= $3, false)
	FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS n (kind, id, i)
	JOIN record AS r ON r.kind = n.kind AND r.id = n.id`

const putRecords = `INSERT INTO record (kind, id, version, expires, value)
	SELECT kind, id, nextval('version'), expires, value
	FROM unnest($1::text[], $2::bytea[], $3::bigint[], $4::bytea[]) AS n (kind, id, expires, value)
	ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version, expires = excluded.expires, value = excluded.value`

const dropRecords = `DELETE FROM record AS r USING unnest($1::text[], $2::bytea[]) AS n (kind, id) WHERE r.kind = n.kind AND r.id = n.id`

// Commit implements storage.Directory.
func (d *directory) Commit(ctx context.Context, now time.Time, w []storage.Write) error {
	if err := storage.CheckWrites(w); err != nil {
		return err
	}
	if len(w) == 0 {
		return nil
	}
	ctx, cancel := (*store)(d).within(ctx)
	defer cancel()
	return plain("commit", (*store)(d).write(ctx, d.pool, func(tx pgx.Tx, _ int64) error {
		versions, err := d.guard(ctx, tx, now, w)
		if err != nil {
			return err
		}
		for i := range w {
			if w[i].Expect != storage.AnyVersion && w[i].Expect != versions[i] {
				return &storage.ConflictError{Key: w[i].Key, Index: i, Version: versions[i]}
			}
		}
		return write(ctx, tx, w)
	}))
}

// guard locks the keys and reads their versions: one round trip.
func (d *directory) guard(ctx context.Context, tx pgx.Tx, now time.Time, w []storage.Write) ([]uint64, error) {
	var p pgx.Batch
	if len(w) > manyWrites {
		p.Queue("LOCK TABLE record IN SHARE ROW EXCLUSIVE MODE")
	} else {
		// Conflicts with the lock above, so that conditions read below stay true.
		p.Queue("LOCK TABLE record IN ROW EXCLUSIVE MODE")
		locks := make([]int64, len(w))
		for i := range w {
			locks[i] = lockOf(d.lockSpace, w[i].Key)
		}
		slices.SortFunc(locks, cmp.Compare[int64])
		p.Queue("SELECT pg_advisory_xact_lock(l) FROM unnest($1::bigint[]) AS l", slices.Compact(locks))
	}
	kinds, ids := make([]string, len(w)), make([][]byte, len(w))
	for i := range w {
		kinds[i], ids[i] = w[i].Kind, []byte(w[i].ID)
	}
	versions := make([]uint64, len(w))
	p.Queue(readVersions, kinds, ids, now.UnixMicro()).Query(func(r pgx.Rows) error {
		for r.Next() {
			var i, version int64
			var expired bool
			if err := r.Scan(&i, &version, &expired); err != nil {
				return err
			}
			if !expired {
				versions[i-1] = uint64(version)
			}
		}
		return r.Err()
	})
	return versions, tx.SendBatch(ctx, &p).Close()
}

func write(ctx context.Context, tx pgx.Tx, w []storage.Write) error {
	var (
		kinds, dropKinds []string
		ids, dropIDs     [][]byte
		values           [][]byte
		expires          []*int64
		p                pgx.Batch
	)
	for i := range w {
		switch {
		case w[i].CheckOnly:
		case w[i].Value == nil:
			dropKinds, dropIDs = append(dropKinds, w[i].Kind), append(dropIDs, []byte(w[i].ID))
		default:
			kinds, ids, values = append(kinds, w[i].Kind), append(ids, []byte(w[i].ID)), append(values, w[i].Value)
			var e *int64
			if !w[i].Expires.IsZero() {
				at := w[i].Expires.UnixMicro()
				e = &at
			}
			expires = append(expires, e)
		}
	}
	if len(dropKinds) > 0 {
		p.Queue(dropRecords, dropKinds, dropIDs)
	}
	if len(kinds) > 0 {
		p.Queue(putRecords, kinds, ids, expires, values)
	}
	if p.Len() == 0 {
		return nil
	}
	return tx.SendBatch(ctx, &p).Close()
}

// Purge implements storage.Directory. A record that a commit holds is left for the
// next time.
func (d *directory) Purge(ctx context.Context, now time.Time, limit int) (int, error) {
	ctx, cancel := (*store)(d).within(ctx)
	defer cancel()
	tag, err := d.pool.Exec(ctx, purgeRecords, now.UnixMicro(), limit)
	return int(tag.RowsAffected()), plain("purge", err)
}
