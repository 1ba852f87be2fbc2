package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/commucat/commucat/sdk/storage"
)

// inventory implements storage.Inventory.
type inventory struct {
	db     *database
	engine engine
}

// Queues implements storage.Inventory.
func (i *inventory) Queues(ctx context.Context, after string, limit int) ([]string, error) {
	if err := check(ctx, after, limit); err != nil {
		return nil, err
	}
	return i.engine.queueNames(after, limit)
}

// Marks implements storage.Inventory.
func (i *inventory) Marks(ctx context.Context, after string, limit int) ([]string, error) {
	if err := check(ctx, after, limit); err != nil {
		return nil, err
	}
	return i.engine.markNames(after, limit)
}

// Kinds implements storage.Inventory.
func (i *inventory) Kinds(ctx context.Context, after string, limit int) ([]string, error) {
	if err := check(ctx, after, limit); err != nil {
		return nil, err
	}
	return i.db.skip("SELECT min(kind) FROM record WHERE kind > ?", after, limit)
}

func check(ctx context.Context, after string, limit int) error {
	if err := ctx.Err(); err != nil {
		return unavailable("inventory", err)
	}
	return storage.CheckPage(after, limit)
}

// skip goes from one name to the next by the index: the query gives the least name
// greater than its argument.
func (d *database) skip(query, after string, limit int) ([]string, error) {
	var out []string
	for len(out) < limit {
		var name sql.NullString
		if err := d.readers.QueryRow(query, after).Scan(&name); err != nil {
			return nil, plain("inventory", err)
		}
		if !name.Valid {
			break
		}
		if name.String <= after {
			return nil, outOfOrder()
		}
		after = name.String
		out = append(out, after)
	}
	return out, nil
}

// queueNames implements engine.
func (s *sqliteRows) queueNames(after string, limit int) ([]string, error) {
	return s.db.skip("SELECT min(queue) FROM message WHERE queue > ?", after, limit)
}

// markNames implements engine.
func (s *sqliteRows) markNames(after string, limit int) ([]string, error) {
	rows, err := s.db.readers.Query("SELECT key FROM mark WHERE key > ? ORDER BY key LIMIT ?", after, limit)
	if err != nil {
		return nil, plain("inventory", err)
	}
	defer func() { _ = rows.Close() }()
	var out []string
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, plain("inventory", err)
		}
		out = append(out, key)
	}
	return out, plain("inventory", rows.Err())
}

// queueNames implements engine. Rows are sorted by the length of the name first, so
// the names of each length are looked for, and merged.
func (p *pebbleRows) queueNames(after string, limit int) (out []string, err error) {
	err = p.use("inventory", func(n *instance) error {
		it, err := n.NewIter(&pebble.IterOptions{LowerBound: []byte{rowKey}, UpperBound: []byte{rowKey + 1}})
		if err != nil {
			return err
		}
		for length := 1; length <= storage.MaxQueue; {
			next, names := namesOf(it, length, after, limit)
			out = append(out, names...)
			length = next
		}
		slices.Sort(out)
		out = out[:min(len(out), limit)]
		return errors.Join(it.Error(), it.Close())
	})
	return out, err
}

// namesOf gives the names of a length that come after a name, and the next length that
// there are names of.
func namesOf(it *pebble.Iterator, length int, after string, limit int) (next int, out []string) {
	// The least name of this length that is not less than after.
	least := after[:min(len(after), length)]
	least += strings.Repeat("\x00", length-len(least))
	for ok := it.SeekGE(rowPrefix(nil, least)); ok && len(out) < limit; {
		k := it.Key()
		if int(k[1]) != length {
			return int(k[1]), out
		}
		name := string(k[2 : 2+length])
		if name > after {
			out = append(out, name)
		}
		ok = it.SeekGE(append(appendRowKey(nil, name, ^uint64(0)), 0))
	}
	if len(out) == limit {
		return length + 1, out
	}
	return storage.MaxQueue + 1, out
}

// markNames implements engine.
func (p *pebbleRows) markNames(after string, limit int) (out []string, err error) {
	err = p.use("inventory", func(n *instance) error {
		it, err := n.NewIter(&pebble.IterOptions{
			LowerBound: append(append([]byte{markKey}, after...), 0), UpperBound: []byte{markKey + 1},
		})
		if err != nil {
			return err
		}
		for ok := it.First(); ok && len(out) < limit; ok = it.Next() {
			out = append(out, string(it.Key()[1:]))
		}
		return errors.Join(it.Error(), it.Close())
	})
	return out, err
}
