package postgres_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk/storage"
)

// TestGoesBack: the database becomes what it was before, in one way and another. Positions
// and versions go on above all that were given, also in a store that was open meanwhile.
func TestGoesBack(t *testing.T) {
	t.Parallel()
	s := pgserver.Start(t)
	dump := filepath.Join(s.Dir, "dump")
	keepDump := func() {
		s.Tool("pg_dump", "--format", "custom", "--schema", "commucat", "--file", dump, "commucat")
	}
	newDatabase := func() {
		s.SQL("postgres", "DROP DATABASE commucat WITH (FORCE)")
		s.SQL("postgres", "CREATE DATABASE commucat OWNER commucat")
		s.Tool("pg_restore", "--dbname", "commucat", dump)
	}
	var back func()
	for _, way := range []struct {
		name       string
		open       bool // the store stays open
		keep, back func()
	}{
		{"a dump into a new database", false, keepDump, newDatabase},
		{"the same, with a store open", true, keepDump, newDatabase},
		{"a dump over the tables in use", true, keepDump, func() {
			s.Tool("pg_restore", "--clean", "--if-exists", "--single-transaction", "--dbname", "commucat", dump)
		}},
		{"another database's name", false, func() {
			s.SQL("postgres", "CREATE DATABASE kept TEMPLATE commucat OWNER commucat")
		}, func() {
			s.SQL("postgres", "DROP DATABASE commucat")
			s.SQL("postgres", "ALTER DATABASE kept RENAME TO commucat")
		}},
		{"the server's files", true, func() { s.Stop(); back = s.Keep(); s.Run() }, func() { s.Stop(); back(); s.Run() }},
	} {
		t.Run(way.name, func(t *testing.T) {
			queue := way.name
			st := openPair(t, s)
			again := func() {
				if !way.open {
					_ = st.Close(context.Background())
				}
			}
			seen, newest := putAlways(t, st, queue, 1), commit(t, st, 1)
			again()
			way.keep()
			if !way.open {
				st = openPair(t, s)
			}
			for n := uint64(2); n <= 20; n++ {
				seen = putAlways(t, st, queue, n)
			}
			newest = max(newest, commit(t, st, 100)) // a sequence is written ahead by 32
			again()
			way.back()
			if !way.open {
				st = openPair(t, s)
			}
			waitFor(t, "the store is ready", func() bool { return st.Ready(t.Context()) == nil })
			if n := putAlways(t, st, queue, 21); n <= seen {
				t.Errorf("position %d was given out again, up to %d were", n, seen)
			}
			if n := putAlways(t, st, queue+", a new one", 1); n <= seen {
				t.Errorf("a new queue begins at %d, up to %d were given out", n, seen)
			}
			if v := commit(t, st, 1); v <= newest {
				t.Errorf("version %d was given out again, up to %d were", v, newest)
			}
			_ = st.Close(context.Background())
		})
	}
}

// commit writes a record some times and gives its version.
func commit(t *testing.T, st storage.Store, times int) uint64 {
	t.Helper()
	key := storage.Key{Kind: "k", ID: "id"}
	for range times {
		waitFor(t, "the record is written", func() bool {
			return st.Directory.Commit(t.Context(), time.Now(), []storage.Write{{Key: key, Expect: storage.AnyVersion, Value: []byte("v")}}) == nil
		})
	}
	got, err := st.Directory.Get(t.Context(), time.Now(), []storage.Key{key})
	if err != nil {
		t.Fatal(err)
	}
	return got[0].Version
}
