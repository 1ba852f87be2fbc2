package postgres_test

import (
	"context"
	"encoding/binary"
	"os"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk/storage"
)

// TestLongQueue: a device with a long queue gets the first page at once and the last as
// fast as the first, a page at a time, while the queue is emptied behind it.
// COMMUCAT_SOAK=1 takes a million rows.
func TestLongQueue(t *testing.T) {
	rows := 20_000
	if os.Getenv("COMMUCAT_SOAK") != "" {
		rows = 1_000_000
	}
	s := pgserver.Start(t)
	st, err := opener(s.Address())(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close(context.Background())
	now, body := time.Now(), make([]byte, 256)
	const batch, page = 1000, 256
	for n := 0; n < rows; n += batch {
		b := storage.Batch{Rows: make([]storage.Append, batch)}
		for i := range b.Rows {
			b.Rows[i] = storage.Append{Queue: "long", Payload: body, Expires: now.Add(time.Hour)}
			binary.BigEndian.PutUint64(b.Rows[i].ID[8:], uint64(n+i))
		}
		if _, err := st.Queues.Append(t.Context(), now, b); err != nil {
			t.Fatal(err)
		}
	}
	var after, next uint64
	var first, slowest time.Duration
	began := time.Now()
	for {
		asked := time.Now()
		got, err := st.Queues.Read(t.Context(), now, "long", after, storage.Page{Messages: page})
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(asked)
		if next == 0 {
			first = took
		}
		slowest = max(slowest, took)
		if len(got) == 0 {
			break
		}
		if len(got) > page {
			t.Fatalf("%d rows in a page", len(got))
		}
		for i := range got {
			if binary.BigEndian.Uint64(got[i].ID[8:]) != next {
				t.Fatalf("row %x in place %d", got[i].ID, next)
			}
			next++
		}
		after = got[len(got)-1].Position
		if err := st.Queues.Done(t.Context(), []storage.Done{{Queue: "long", Cursor: after}}); err != nil {
			t.Fatal(err)
		}
	}
	if next != uint64(rows) {
		t.Errorf("%d rows of %d", next, rows)
	}
	took := time.Since(began)
	t.Logf("%d rows: first page after %v, slowest page %v, %v in all, %.0f rows/s", rows, first, slowest, took, float64(rows)/took.Seconds())
}
