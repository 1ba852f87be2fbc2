package host

import (
	"context"
	"time"

	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/storage"
)

// queues is storage.Queues in the other process.
type queues struct{ *store }

var _ storage.Queues = queues{}

// Append sends the rows that are within the contract's limits, in messages of about a
// megabyte; the others are answered here.
func (q queues) Append(ctx context.Context, now time.Time, b storage.Batch) ([]storage.Appended, error) {
	if err := q.check(ctx); err != nil {
		return nil, err
	}
	for i := range b.Marks {
		if err := b.Marks[i].Check(); err != nil {
			return nil, err
		}
	}
	bad := refused(b.Rows)
	parts := appendParts(now, &b, bad)
	n := len(b.Rows) - len(bad)
	var out []storage.Appended
	err := q.lane(b.Rows).Call(ctx, parts, func(r *wirepb.StorageReply) (err error) {
		out, err = wire.ToResults(r.GetResults(), n)
		return err
	})
	if err != nil || len(bad) == 0 {
		return out, err
	}
	all := make([]storage.Appended, len(b.Rows))
	for i := range all {
		if err, ok := bad[i]; ok {
			all[i].Err = err
			continue
		}
		all[i], out = out[0], out[1:]
	}
	return all, nil
}

// refused are the rows over a limit, by their place.
func refused(rows []storage.Append) map[int]error {
	var bad map[int]error
	for i := range rows {
		if err := rows[i].Check(); err != nil {
			if bad == nil {
				bad = map[int]error{}
			}
			bad[i] = err
		}
	}
	return bad
}

// lane is the stream of a batch: that of its first row's queue.
func (q queues) lane(rows []storage.Append) *wire.Caller {
	if len(rows) == 0 {
		return q.lanes[0]
	}
	return q.lanes[storage.Lane(rows[0].Queue, len(q.lanes))]
}

func appendParts(now time.Time, b *storage.Batch, bad map[int]error) []*wirepb.StorageRequest {
	var parts []*wirepb.StorageRequest
	part := func() *wirepb.Rows {
		r := &wirepb.Rows{}
		parts = append(parts, &wirepb.StorageRequest{Now: wire.FromTime(now), Call: &wirepb.StorageRequest_Append{Append: r}})
		return r
	}
	rows := part()
	rows.QuotaMessages, rows.QuotaBytes = b.Quota.Messages, b.Quota.Bytes
	for _, m := range b.Marks {
		if len(rows.Marks) > 0 && len(rows.Marks)*storage.MaxMark >= 2*wire.PartBytes {
			rows = part()
		}
		rows.Marks = append(rows.Marks, &wirepb.Mark{Key: []byte(m.Key), Value: m.Value, Delete: m.Value == nil})
	}
	for i := 0; i < len(b.Rows); {
		// What goes into one message is counted first: its columns are made at once.
		n, payloads, names := 0, 0, 0
		for j := i; j < len(b.Rows); j++ {
			if _, skip := bad[j]; skip {
				n++
				continue
			}
			r := &b.Rows[j]
			if n > 0 && payloads+len(r.Payload) > wire.PartBytes {
				break
			}
			n, payloads, names = n+1, payloads+len(r.Payload), names+len(r.Queue)
		}
		if i > 0 || len(rows.Marks) > 0 && payloads > wire.PartBytes {
			rows = part()
		}
		rows.Queues, rows.QueueSizes = make([]byte, 0, names), make([]uint32, 0, n)
		rows.Payloads, rows.PayloadSizes = make([]byte, 0, payloads), make([]uint32, 0, n)
		rows.Ids, rows.Expires = make([]byte, 0, 16*n), make([]int64, 0, n)
		for j := i; j < i+n; j++ {
			if _, skip := bad[j]; !skip {
				wire.AppendRow(rows, &b.Rows[j])
			}
		}
		i += n
	}
	return parts
}

func (q queues) Read(ctx context.Context, now time.Time, queue string, after uint64, max storage.Page) ([]storage.Envelope, error) {
	if err := q.check(ctx); err != nil {
		return nil, err
	}
	if err := storage.CheckQueue(queue); err != nil {
		return nil, err
	}
	var out []storage.Envelope
	err := q.reads.Call(ctx, one(now, &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Read{Read: &wirepb.ReadCall{
		Queue: []byte(queue), After: after, Messages: int64(max.Messages), Bytes: int64(max.Bytes),
	}}}), func(r *wirepb.StorageReply) (err error) {
		out, err = wire.ToEnvelopes(out, r.GetEnvelopes(), after)
		return err
	})
	if err == nil && max.Messages > 0 && len(out) > max.Messages {
		err = odd(max.Messages, len(out))
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (q queues) Done(ctx context.Context, d []storage.Done) error {
	var parts []*wirepb.StorageRequest
	var part *wirepb.DoneCall
	size := 0
	for i := range d {
		if err := d[i].Check(); err != nil {
			return err
		}
		if part == nil || size > wire.PartBytes {
			part, size = &wirepb.DoneCall{}, 0
			parts = append(parts, &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Done{Done: part}})
		}
		one := &wirepb.QueueDone{Queue: []byte(d[i].Queue), Cursor: d[i].Cursor}
		for _, r := range d[i].Ranges {
			one.Ranges = append(one.Ranges, r[0], r[1])
		}
		part.Done = append(part.Done, one)
		size += len(d[i].Queue) + 16 + 20*len(d[i].Ranges)
	}
	if parts == nil {
		return q.check(ctx)
	}
	return q.do(ctx, q.writes, parts)
}

// names makes the requests of a call that has nothing but texts.
func names(in []string, call func(*wirepb.Names) *wirepb.StorageRequest) []*wirepb.StorageRequest {
	var parts []*wirepb.StorageRequest
	for first := true; first || len(in) > 0; first = false {
		n, size := 0, 0
		for n < len(in) && (n == 0 || size <= wire.PartBytes) {
			size += len(in[n]) + 8
			n++
		}
		parts = append(parts, call(&wirepb.Names{Names: wire.Bytes(in[:n])}))
		in = in[n:]
	}
	return parts
}

func (q queues) Depths(ctx context.Context, in []string) ([]storage.Depth, error) {
	numbers, err := q.numbers(ctx, q.reads, 2*len(in), names(in, func(n *wirepb.Names) *wirepb.StorageRequest {
		return &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Depths{Depths: n}}
	}))
	if err != nil {
		return nil, err
	}
	out := make([]storage.Depth, len(in))
	for i := range out {
		out[i] = storage.Depth{Messages: numbers[2*i], Bytes: numbers[2*i+1]}
	}
	return out, nil
}

func (q queues) Marks(ctx context.Context, keys []string) ([][]byte, error) {
	return q.values(ctx, q.reads, len(keys), names(keys, func(n *wirepb.Names) *wirepb.StorageRequest {
		return &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Marks{Marks: n}}
	}))
}

func (q queues) Drop(ctx context.Context, queue string) (uint64, error) {
	if err := storage.CheckQueue(queue); err != nil {
		return 0, err
	}
	n, err := q.numbers(ctx, q.writes, 1, names([]string{queue}, func(n *wirepb.Names) *wirepb.StorageRequest {
		return &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Drop{Drop: n}}
	}))
	if err != nil {
		return 0, err
	}
	return n[0], nil
}

func (q queues) Purge(ctx context.Context, now time.Time, limit int) (int, error) {
	n, err := q.numbers(ctx, q.writes, 1, one(now, &wirepb.StorageRequest{
		Call: &wirepb.StorageRequest_Purge{Purge: &wirepb.PurgeCall{Limit: int64(limit)}},
	}))
	if err != nil {
		return 0, err
	}
	return int(min(n[0], uint64(max(limit, 0)))), nil
}
