package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/commucat/commucat/sdk/storage"
)

// sqliteRows is the engine over the tables message, mark and note.
type sqliteRows struct{ db *database }

// position fits an unsigned position into SQLite's signed integers.
func position(p uint64) int64 { return int64(min(p, math.MaxInt64)) }

const bulk = 32 // rows per statement

var insertMany = "INSERT INTO message (queue, position, id, expires, sum, body) VALUES " +
	strings.TrimSuffix(strings.Repeat("(?,?,?,?,?,?),", bulk), ",")

const insertOne = "INSERT INTO message (queue, position, id, expires, sum, body) VALUES (?,?,?,?,?,?)"

// write implements engine. SQLite has no cheaper way than a synchronous commit, so
// sync is always true.
func (s *sqliteRows) write(c *change, _ bool) error {
	return s.db.do(context.Background(), func(t *tx) error {
		if err := s.insert(t, c.puts); err != nil {
			return err
		}
		for _, d := range c.dels {
			if err := t.exec("DELETE FROM message WHERE queue = ? AND position = ?", d.queue, position(d.position)); err != nil {
				return err
			}
		}
		for _, d := range c.cuts {
			if err := t.exec("DELETE FROM message WHERE queue = ? AND position BETWEEN ? AND ?", d.queue, position(d.from), position(d.to)); err != nil {
				return err
			}
		}
		return s.rest(t, c)
	})
}

func (s *sqliteRows) insert(t *tx, puts []put) error {
	var sum summer
	args := make([]any, 0, 6*bulk)
	for len(puts) > 0 {
		n, query := 1, insertOne
		if len(puts) >= bulk {
			n, query = bulk, insertMany
		}
		args = args[:0]
		for i := range puts[:n] {
			p := &puts[i]
			body := p.body
			if body == nil {
				body = []byte{}
			}
			args = append(args, p.queue, position(p.position), p.id[:], int64(p.expires), int64(sum.sum(p.queue, &p.row, p.body)), body)
		}
		if err := t.exec(query, args...); err != nil {
			return err
		}
		puts = puts[n:]
	}
	return nil
}

func (s *sqliteRows) rest(t *tx, c *change) error {
	for _, m := range c.marks {
		var err error
		if m.Value == nil {
			err = t.exec("DELETE FROM mark WHERE key = ?", m.Key)
		} else {
			err = t.exec("INSERT OR REPLACE INTO mark VALUES (?, ?)", m.Key, m.Value)
		}
		if err != nil {
			return err
		}
	}
	for _, n := range c.notes {
		if err := t.exec("INSERT OR IGNORE INTO note VALUES (?, ?)", int64(n.bucket), n.queue); err != nil {
			return err
		}
	}
	for _, n := range c.paid {
		if err := t.exec("DELETE FROM note WHERE bucket = ? AND queue = ?", int64(n.bucket), n.queue); err != nil {
			return err
		}
	}
	if c.high != 0 {
		return t.exec("INSERT OR REPLACE INTO counter VALUES ('position', ?)", position(c.high))
	}
	return nil
}

// scan implements engine.
func (s *sqliteRows) scan(queue string, f func(row)) error {
	rows, err := s.db.readers.Query("SELECT position, id, expires, length(body) FROM message WHERE queue = ? ORDER BY position", queue)
	if err != nil {
		return plain("scan", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var r row
		var id sql.RawBytes
		if err := rows.Scan(&r.position, &id, &r.expires, &r.size); err != nil {
			return plain("scan", err)
		}
		copy(r.id[:], id)
		f(r)
	}
	return plain("scan", rows.Err())
}

// id implements engine.
func (s *sqliteRows) id(queue string, at uint64) (id [16]byte, err error) {
	var b []byte
	err = s.db.readers.QueryRow("SELECT id FROM message WHERE queue = ? AND position = ?", queue, position(at)).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return id, corrupt("a row of the index is not in the store")
	}
	copy(id[:], b)
	return id, plain("id", err)
}

// read implements engine.
func (s *sqliteRows) read(queue string, after, until uint64, now uint32, page storage.Page) ([]storage.Envelope, error) {
	// The sum is checked before the expiry is believed.
	rows, err := s.db.readers.Query(`SELECT position, id, expires, sum, body FROM message
WHERE queue = ? AND position > ? AND position <= ? ORDER BY position`, queue, position(after), position(until))
	if err != nil {
		return nil, plain("read", err)
	}
	defer func() { _ = rows.Close() }()
	var (
		out []storage.Envelope
		sum summer
	)
	for bytes := 0; (page.Messages <= 0 || len(out) < page.Messages) && (page.Bytes <= 0 || bytes < page.Bytes) && rows.Next(); {
		var r row
		var id, body []byte
		var check uint32
		if err := rows.Scan(&r.position, &id, &r.expires, &check, &body); err != nil {
			return nil, plain("read", err)
		}
		copy(r.id[:], id)
		if sum.sum(queue, &r, body) != check {
			return nil, corrupt(fmt.Sprintf("row at position %d fails its checksum", r.position))
		}
		if r.position <= after {
			return nil, outOfOrder()
		}
		if after = r.position; r.expires <= now {
			continue
		}
		if body == nil {
			body = []byte{}
		}
		out = append(out, storage.Envelope{Position: r.position, ID: r.id, Payload: body, Expires: stamp(r.expires)})
		bytes += len(body)
	}
	return out, plain("read", rows.Err())
}

// marks implements engine.
func (s *sqliteRows) marks(keys []string) ([][]byte, error) {
	out := make([][]byte, len(keys))
	for i, k := range keys {
		err := s.db.readers.QueryRow("SELECT value FROM mark WHERE key = ?", k).Scan(&out[i])
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, plain("marks", err)
		}
		if out[i] == nil {
			out[i] = []byte{}
		}
	}
	return out, nil
}

// due implements engine.
func (s *sqliteRows) due(before uint32, limit int) ([]note, error) {
	rows, err := s.db.readers.Query("SELECT bucket, queue FROM note WHERE bucket < ? ORDER BY bucket, queue LIMIT ?", int64(before), limit)
	if err != nil {
		return nil, plain("due", err)
	}
	defer func() { _ = rows.Close() }()
	var out []note
	for rows.Next() {
		var n note
		if err := rows.Scan(&n.bucket, &n.queue); err != nil {
			return nil, plain("due", err)
		}
		out = append(out, n)
	}
	return out, plain("due", rows.Err())
}

// high implements engine.
func (s *sqliteRows) high() (high uint64, err error) {
	err = s.db.readers.QueryRow("SELECT value FROM counter WHERE name = 'position'").Scan(&high)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return high, plain("high", err)
}

func (s *sqliteRows) ready() error { return nil }
func (s *sqliteRows) close() error { return nil }
