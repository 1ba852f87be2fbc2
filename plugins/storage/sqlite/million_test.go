//go:build !race

package sqlite

import (
	"context"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// TestBudgetMillion: with a million rows in one queue the first page comes at once and a
// resume does not load them into memory.
func TestBudgetMillion(t *testing.T) {
	const rows, batch = 1_000_000, 4096
	dir, now, body := t.TempDir(), time.Now(), make([]byte, 100)
	s := openTest(t, dir, Config{Queues: "pebble"}, options{})
	for n := 0; n < rows; n += batch {
		if _, err := s.Queues.Append(t.Context(), now, storage.Batch{Rows: rowsOf(batch, 1, uint64(n), body, now)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, Config{Queues: "pebble"}, options{})
	queue := rowsOf(1, 1, 0, nil, now)[0].Queue
	start, before := time.Now(), resident(t)
	page, err := s.Queues.Read(t.Context(), now, queue, 0, storage.Page{Messages: 256})
	first := time.Since(start)
	if err != nil || len(page) != 256 {
		t.Fatalf("%d rows (%v)", len(page), err)
	}
	start = time.Now()
	n, after := 0, uint64(0)
	for {
		page, err := s.Queues.Read(t.Context(), now, queue, after, storage.Page{Messages: 256})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		n += len(page)
		after = page[len(page)-1].Position
		if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: queue, Cursor: after}}); err != nil {
			t.Fatal(err)
		}
	}
	all := time.Since(start)
	t.Logf("first page after %v, drained %d rows in %v, %d KiB more resident", first, n, all, resident(t)-before)
	if first > all/5 { // it is one page of 4,000
		t.Errorf("the first page took %v, all of them %v", first, all)
	}
	if n < rows {
		t.Errorf("drained %d rows of %d", n, rows)
	}
}
