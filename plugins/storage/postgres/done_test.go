package postgres_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk/storage"
)

// TestCursorAhead: a device may say that it is done with positions that have not been
// given out. What comes at them later is given to it all the same, and is taken out by
// the next cursor.
func TestCursorAhead(t *testing.T) {
	s := pgserver.Start(t)
	st := openPair(t, s)
	done := func(cursor uint64) {
		t.Helper()
		if err := st.Queues.Done(t.Context(), []storage.Done{{Queue: "q", Cursor: cursor}, {Queue: "unknown", Cursor: cursor}}); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(want ...uint64) {
		t.Helper()
		rows, err := st.Queues.Read(t.Context(), time.Now(), "q", 0, storage.Page{})
		if err != nil || len(rows) != len(want) {
			t.Fatalf("%d rows, want %d: %v", len(rows), len(want), err)
		}
		for i, r := range rows {
			if r.Position != want[i] {
				t.Errorf("row at %d, want %d", r.Position, want[i])
			}
		}
	}
	first := putAlways(t, st, "q", 1)
	done(first + 10)
	holds()
	second := putAlways(t, st, "q", 2)
	third := putAlways(t, st, "q", 3)
	holds(second, third)
	done(second)
	holds(third)
	done(first) // an old one changes nothing
	holds(third)
	if _, err := st.Queues.Drop(t.Context(), "q"); err != nil {
		t.Fatal(err)
	}
	holds()
	last := putAlways(t, st, "q", 4)
	holds(last)
	done(last)
	holds()
}

// TestReadersDoNotStarveAppends: however many read, who stores a message has a
// connection.
func TestReadersDoNotStarveAppends(t *testing.T) {
	s := pgserver.Start(t)
	st, err := storage.Open(t.Context(), postgres.Plugin(), nil, map[string]any{"address": []any{s.Address()}, "connections": 4})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close(context.Background())
	putAlways(t, st, "q", 1)
	// Another session holds what the readers ask for.
	other := session(t, s)
	if _, err := other.Exec(t.Context(), "BEGIN; LOCK TABLE commucat.record IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	for range 16 {
		readers.Go(func() {
			_, err := st.Directory.Get(ctx, time.Now(), []storage.Key{{Kind: "k", ID: "i"}})
			if err == nil {
				t.Error("a reader was answered in spite of the lock")
			}
		})
	}
	waitFor(t, "all connections of readers are taken", func() bool {
		return s.SQL("commucat", "SELECT count(*) FROM pg_locks WHERE NOT granted") == "2"
	})
	if _, err := put(t.Context(), st, "q", 2); err != nil {
		t.Error(err)
	}
}
