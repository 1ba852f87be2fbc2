package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// directory implements storage.Directory.
type directory struct {
	db    *database
	space *space
}

// recordSum covers every column, so that a row that strayed is found as well.
func recordSum(kind, id string, version uint64, expires int64, value []byte) uint32 {
	var b [20]byte
	binary.BigEndian.PutUint32(b[:], uint32(len(kind)))
	binary.BigEndian.PutUint64(b[4:], version)
	binary.BigEndian.PutUint64(b[12:], uint64(expires))
	s := crc32.Update(0, castagnoli, b[:])
	s = crc32.Update(s, castagnoli, []byte(kind+id))
	return crc32.Update(s, castagnoli, value)
}

func micros(t time.Time) sql.NullInt64 {
	if t.IsZero() {
		return sql.NullInt64{}
	}
	return sql.NullInt64{Int64: t.UnixMicro(), Valid: true}
}

const columns = "SELECT id, version, expires, value, sum FROM record "

type scanner interface{ Scan(...any) error }

// scanRecord reads and checks a row; version 0 if it has expired.
func scanRecord(s scanner, kind string, now time.Time) (storage.Record, error) {
	r := storage.Record{Key: storage.Key{Kind: kind}}
	var expires sql.NullInt64
	var sum uint32
	var version int64
	if err := s.Scan(&r.ID, &version, &expires, &r.Value, &sum); err != nil {
		return r, err
	}
	r.Version = uint64(version)
	if recordSum(kind, r.ID, r.Version, expires.Int64, r.Value) != sum {
		return r, corrupt(fmt.Sprintf("a %s record fails its checksum", kind))
	}
	if r.Value == nil {
		r.Value = []byte{}
	}
	if expires.Valid {
		if now.UnixMicro() >= expires.Int64 {
			return storage.Record{Key: r.Key}, nil
		}
		r.Expires = time.UnixMicro(expires.Int64).UTC()
	}
	return r, nil
}

// Get implements storage.Directory.
func (d *directory) Get(ctx context.Context, now time.Time, keys []storage.Key) ([]storage.Record, error) {
	for _, k := range keys {
		if err := k.Check(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := within(ctx)
	defer cancel()
	out := make([]storage.Record, len(keys))
	// One snapshot for all of them.
	t, err := d.db.readers.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, plain("get", err)
	}
	defer func() { _ = t.Rollback() }()
	for i, k := range keys {
		out[i], err = scanRecord(t.QueryRowContext(ctx, columns+"WHERE kind = ? AND id = ?", k.Kind, k.ID), k.Kind, now)
		if errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
		if err != nil {
			return nil, plain("get", err)
		}
		out[i].Key = k
	}
	return out, nil
}

// List implements storage.Directory.
func (d *directory) List(ctx context.Context, now time.Time, r storage.Range) ([]storage.Record, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	ctx, cancel := within(ctx)
	defer cancel()
	query := columns + "WHERE kind = ? AND id > ? AND id >= ? AND (expires IS NULL OR expires > ?)"
	args := []any{r.Kind, r.After, r.Prefix, now.UnixMicro()}
	if end, ok := prefixEnd(r.Prefix); ok {
		query += " AND id < ?"
		args = append(args, end)
	}
	rows, err := d.db.readers.QueryContext(ctx, query+" ORDER BY id LIMIT ?", append(args, r.Limit)...)
	if err != nil {
		return nil, plain("list", err)
	}
	defer func() { _ = rows.Close() }()
	var out []storage.Record
	for rows.Next() {
		rec, err := scanRecord(rows, r.Kind, now)
		if err != nil {
			return nil, plain("list", err)
		}
		out = append(out, rec)
	}
	return out, plain("list", rows.Err())
}

// prefixEnd is the least string above all that begin with prefix.
func prefixEnd(prefix string) (string, bool) {
	b := []byte(prefix)
	for len(b) > 0 {
		if b[len(b)-1] < math.MaxUint8 {
			b[len(b)-1]++
			return string(b), true
		}
		b = b[:len(b)-1]
	}
	return "", false
}

// Commit implements storage.Directory.
func (d *directory) Commit(ctx context.Context, now time.Time, w []storage.Write) error {
	if err := storage.CheckWrites(w); err != nil {
		return err
	}
	bytes := 0
	for i := range w {
		if w[i].Value != nil && !w[i].CheckOnly {
			bytes += len(w[i].Value) + len(w[i].ID) + 64
		}
	}
	if err := d.space.room(bytes); err != nil {
		return err
	}
	return d.db.do(ctx, func(t *tx) error {
		if err := expect(t, now, w); err != nil {
			return err
		}
		return apply(t, w)
	})
}

// expect checks all conditions.
func expect(t *tx, now time.Time, w []storage.Write) error {
	s, err := t.prepare("SELECT version, expires FROM record WHERE kind = ? AND id = ?")
	if err != nil {
		return err
	}
	for i := range w {
		if w[i].Expect == storage.AnyVersion {
			continue
		}
		var version int64
		var expires sql.NullInt64
		err := s.QueryRow(w[i].Kind, w[i].ID).Scan(&version, &expires)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err != nil || expires.Valid && now.UnixMicro() >= expires.Int64 {
			version = 0
		}
		if uint64(version) != w[i].Expect {
			return &storage.ConflictError{Key: w[i].Key, Index: i, Version: uint64(version)}
		}
	}
	return nil
}

// apply makes all changes, under one new version.
func apply(t *tx, w []storage.Write) error {
	var version int64
	for i := range w {
		switch {
		case w[i].CheckOnly:
			continue
		case w[i].Value == nil:
			if err := t.exec("DELETE FROM record WHERE kind = ? AND id = ?", w[i].Kind, w[i].ID); err != nil {
				return err
			}
			continue
		case version == 0:
			s, err := t.prepare("INSERT INTO counter VALUES ('version', 1) ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value")
			if err == nil {
				err = s.QueryRow().Scan(&version)
			}
			if err != nil {
				return err
			}
		}
		expires := micros(w[i].Expires)
		sum := recordSum(w[i].Kind, w[i].ID, uint64(version), expires.Int64, w[i].Value)
		if err := t.exec("INSERT OR REPLACE INTO record (kind, id, version, expires, value, sum) VALUES (?, ?, ?, ?, ?, ?)",
			w[i].Kind, w[i].ID, version, expires, w[i].Value, int64(sum)); err != nil {
			return err
		}
	}
	return nil
}

// Purge implements storage.Directory.
func (d *directory) Purge(ctx context.Context, now time.Time, limit int) (n int, err error) {
	err = d.db.do(ctx, func(t *tx) error {
		s, err := t.prepare("DELETE FROM record WHERE (kind, id) IN (SELECT kind, id FROM record WHERE expires <= ? LIMIT ?)")
		if err != nil {
			return err
		}
		r, err := s.Exec(now.UnixMicro(), limit)
		if err != nil {
			return err
		}
		k, err := r.RowsAffected()
		n = int(k)
		return err
	})
	return n, err
}
