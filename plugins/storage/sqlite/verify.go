package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// verify checks the database before it is used, for at most the given time: each
// row's sum and place, and the tree that leads to the rows. A damaged row is refused
// whenever it is read, but of one that cannot be found any more no reader can tell.
func (d *database) verify(ctx context.Context, most time.Duration) error {
	work, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for _, check := range []func(context.Context) error{d.verifyRecords, d.verifyMessages, d.verifyTree} {
		if err := check(work); err != nil {
			if work.Err() != nil && ctx.Err() == nil {
				return nil // a slow disk shows as any error once the time is over
			}
			return plain("verify", err)
		}
	}
	return nil
}

func (d *database) verifyRecords(ctx context.Context) error {
	var lastKind, lastID text
	return d.each(ctx, "SELECT kind, id, version, expires, value, sum FROM record", func(scan func(...any) error) error {
		var kind, id text
		var version int64
		var expires sql.NullInt64
		var value sql.RawBytes
		var sum uint32
		if err := scan(&kind, &id, &version, &expires, &value, &sum); err != nil {
			return err
		}
		if recordSum(string(kind), string(id), uint64(version), expires.Int64, value) != sum {
			return corrupt(fmt.Sprintf("a %s record fails its checksum; restore the database from a backup", kind))
		}
		if kind < lastKind || kind == lastKind && id <= lastID {
			return outOfOrder()
		}
		lastKind, lastID = kind, id
		return nil
	})
}

func (d *database) verifyMessages(ctx context.Context) error {
	var (
		last    text
		highest uint64
		sum     summer
	)
	return d.each(ctx, "SELECT queue, position, id, expires, sum, body FROM message", func(scan func(...any) error) error {
		var queue text
		var r row
		var check uint32
		var id, body sql.RawBytes
		if err := scan(&queue, &r.position, &id, &r.expires, &check, &body); err != nil {
			return err
		}
		copy(r.id[:], id)
		if sum.sum(string(queue), &r, body) != check {
			return corrupt("a message fails its checksum; restore the database from a backup")
		}
		if queue < last || queue == last && r.position <= highest {
			return outOfOrder()
		}
		last, highest = queue, r.position
		return nil
	})
}

// verifyTree finds pages that are lost, or reached twice.
func (d *database) verifyTree(ctx context.Context) error {
	return d.each(ctx, "PRAGMA quick_check(1)", func(scan func(...any) error) error {
		var found string
		if err := scan(&found); err != nil {
			return err
		}
		if found != "ok" {
			return corrupt("the tree of the database is damaged; restore it from a backup")
		}
		return nil
	})
}

// text is a column that holds text: the same bytes as a blob sort elsewhere, where
// no query finds them.
type text string

// Scan implements sql.Scanner.
func (t *text) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return corrupt("a key is no text; restore the database from a backup")
	}
	*t = text(s)
	return nil
}

// each calls f for each row of a query, which ends with f's first error.
func (d *database) each(ctx context.Context, query string, f func(scan func(...any) error) error) error {
	rows, err := d.readers.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
