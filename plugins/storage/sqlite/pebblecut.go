package sqlite

import "github.com/cockroachdb/pebble/v2"

func del(b *pebble.Batch, queue string, position uint64) error {
	op := b.SingleDeleteDeferred(2 + len(queue) + 8)
	appendRowKey(op.Key[:0], queue, position)
	return op.Finish()
}

// cut deletes a range row by row, unless it is long: a memtable sorts all its range
// deletions anew for each reader, which a few thousand pages of a drain make slow.
func (n *instance) cut(b *pebble.Batch, c cut) error {
	rows := c.rows
	if rows == nil {
		rows = make([]uint64, 0, 256)
		err := walk(n, c.queue, c.from, c.to, func(r row, _ []byte) (bool, error) {
			rows = append(rows, r.position)
			return len(rows) < manyCut, nil
		})
		if err != nil {
			return err
		}
	}
	if len(rows) >= manyCut {
		return b.DeleteRange(appendRowKey(nil, c.queue, c.from), rowEnd(c.queue, c.to), nil)
	}
	for _, p := range rows {
		if err := del(b, c.queue, p); err != nil {
			return err
		}
	}
	return nil
}
