package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// referenceQueues implements storage.Queues over the table relay_queue: an inbox is a
// queue, its rows are in the order in which they were to be delivered. A payload is a
// JSON object (envelope_id, deliver_after and expires_at in unix microseconds, length),
// a line feed, and the frame; one longer than a frame may be is left out.
type referenceQueues reference

const inboxCursor, inboxesCursor = "relay_queue_rows", "relay_queue_names"

// Queues names inboxes. One with a longer name than a queue may have is not named.
func (i *referenceInventory) Queues(ctx context.Context, after string, limit int) ([]string, error) {
	if err := storage.CheckPage(after, limit); err != nil {
		return nil, err
	}
	r := (*reference)(i)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.columns["relay_queue"] == nil {
		return nil, nil
	}
	ctx, cancel := r.within(ctx)
	defer cancel()
	c := r.cursors[inboxesCursor]
	if c == nil || c.at != after {
		var err error
		c, err = r.declare(ctx, inboxesCursor, fmt.Sprintf(`SELECT name FROM (SELECT DISTINCT channel_id AS name FROM %s.relay_queue) AS s
			WHERE octet_length(name) BETWEEN 1 AND %d ORDER BY name COLLATE "C"`, r.schema, storage.MaxQueue))
		if err != nil {
			return nil, err
		}
	}
	var out []string
	for len(out) < limit && !c.ended {
		rows, err := r.fetch(ctx, c, limit-len(out))
		if err != nil {
			return nil, err
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return nil, plain("inboxes", err)
		}
		c.ended = len(names) == 0
		for _, n := range names {
			if c.at = n; n > after {
				out = append(out, n)
			}
		}
	}
	return out, nil
}

// Read implements storage.Queues.
func (q *referenceQueues) Read(ctx context.Context, _ time.Time, queue string, after uint64, page storage.Page) ([]storage.Envelope, error) {
	if err := storage.CheckQueue(queue); err != nil {
		return nil, err
	}
	r := (*reference)(q)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.columns["relay_queue"] == nil {
		return nil, nil
	}
	ctx, cancel := r.within(ctx)
	defer cancel()
	c := r.cursors[inboxCursor]
	if c == nil || r.queue != queue || c.position != after {
		var err error
		if c, err = r.inbox(ctx, queue); err != nil {
			return nil, err
		}
	}
	var out []storage.Envelope
	for bytes := 0; len(out) < page.Messages && bytes < page.Bytes && !c.ended; {
		rows, err := r.fetch(ctx, c, min(page.Messages-len(out), 16))
		if err != nil {
			return nil, err
		}
		got, err := c.envelopes(rows)
		if err != nil {
			return nil, err
		}
		c.ended = len(got) == 0
		for i := range got {
			if got[i].Position > after {
				out = append(out, got[i])
				bytes += len(got[i].Payload)
			}
		}
	}
	return out, nil
}

func (r *reference) inbox(ctx context.Context, queue string) (*cursor, error) {
	var quoted string // a cursor takes no parameters
	if err := r.conn.QueryRow(ctx, "SELECT quote_literal($1::text)", queue).Scan(&quoted); err != nil {
		return nil, plain("inbox", err)
	}
	micros := func(column string) string {
		return fmt.Sprintf("CASE WHEN isfinite(%s) THEN floor(extract(epoch FROM %s) * 1000000)::bigint END", column, column)
	}
	c, err := r.declare(ctx, inboxCursor, fmt.Sprintf(`SELECT envelope_id::text, %s, %s, octet_length(payload), CASE WHEN octet_length(payload) <= %d THEN payload END
		FROM %s.relay_queue WHERE channel_id = %s ORDER BY deliver_after, envelope_id COLLATE "C"`,
		micros("deliver_after"), micros("expires_at"), ccp.MaxFrame, r.schema, quoted))
	r.queue = queue
	return c, err
}

// message is what stands before the frame. What is infinite is null.
type message struct {
	ID      string `json:"envelope_id"`
	Due     *int64 `json:"deliver_after"`
	Expires *int64 `json:"expires_at"`
	Length  int    `json:"length"`
}

// distant is when a row without an end expires.
var distant = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func (c *cursor) envelopes(rows pgx.Rows) ([]storage.Envelope, error) {
	var out []storage.Envelope
	var m message
	var frame []byte
	_, err := pgx.ForEachRow(rows, []any{&m.ID, &m.Due, &m.Expires, &m.Length, &frame}, func() error {
		c.position++
		sum := sha256.Sum256([]byte(m.ID))
		if len(m.ID) > 255 {
			m.ID = fmt.Sprintf("%.64s… (sha256 %x)", m.ID, sum)
		}
		head, err := json.Marshal(m)
		e := storage.Envelope{Position: c.position, ID: [16]byte(sum[:16]), Payload: append(append(head, '\n'), frame...), Expires: distant}
		if m.Expires != nil {
			e.Expires = time.UnixMicro(*m.Expires).UTC()
		}
		out = append(out, e)
		return err
	})
	return out, plain("inbox", err)
}

// Append implements storage.Queues: it does not, nor does anything else that writes.
func (q *referenceQueues) Append(context.Context, time.Time, storage.Batch) ([]storage.Appended, error) {
	return nil, errSource
}

// Done does not.
func (q *referenceQueues) Done(context.Context, []storage.Done) error { return errSource }

// Drop does not.
func (q *referenceQueues) Drop(context.Context, string) (uint64, error) { return 0, errSource }

// Purge does not.
func (q *referenceQueues) Purge(context.Context, time.Time, int) (int, error) { return 0, errSource }

// Marks implements storage.Queues: there are none.
func (q *referenceQueues) Marks(_ context.Context, keys []string) ([][]byte, error) {
	return make([][]byte, len(keys)), nil
}

// Depths implements storage.Queues.
func (q *referenceQueues) Depths(ctx context.Context, queues []string) ([]storage.Depth, error) {
	r := (*reference)(q)
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := r.within(ctx)
	defer cancel()
	out := make([]storage.Depth, len(queues))
	for i, name := range queues {
		err := r.conn.QueryRow(ctx, "SELECT count(*), coalesce(sum(octet_length(payload)), 0) FROM "+r.schema+".relay_queue WHERE channel_id = $1", name).
			Scan(&out[i].Messages, &out[i].Bytes)
		if err != nil {
			return nil, plain("depths", err)
		}
	}
	return out, nil
}
