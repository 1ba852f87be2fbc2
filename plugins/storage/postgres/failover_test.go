package postgres_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// pair is a server with a standby, and a store that knows both.
type pair struct {
	storage.Store
	main, standby *pgserver.Server
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{main: pgserver.Start(t)}
	p.standby = p.main.Standby()
	p.Store = openPair(t, p.main, p.standby)
	return p
}

func openPair(t *testing.T, servers ...*pgserver.Server) storage.Store {
	t.Helper()
	return openPairWithin(t, "10s", servers...)
}

func openPairWithin(t *testing.T, timeout string, servers ...*pgserver.Server) storage.Store {
	t.Helper()
	var addresses []any
	for _, s := range servers {
		addresses = append(addresses, s.Address())
	}
	st, err := storage.Open(t.Context(), postgres.Plugin(), nil, map[string]any{"address": addresses, "timeout": timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close(context.Background()) })
	return st
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// follows waits until the standby has all that the server committed.
func (p *pair) follows(t *testing.T) {
	t.Helper()
	waitFor(t, "the standby follows", func() bool {
		return p.main.SQL("postgres", "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND flush_lsn >= pg_current_wal_flush_lsn()") == "1"
	})
}

func put(ctx context.Context, st storage.Store, queue string, n uint64) (position uint64, err error) {
	row := storage.Append{Queue: queue, Payload: strconv.AppendUint(nil, n, 10), Expires: time.Now().Add(time.Hour)}
	binary.BigEndian.PutUint64(row.ID[8:], n)
	out, err := st.Queues.Append(ctx, time.Now(), storage.Batch{Rows: []storage.Append{row}})
	if err == nil {
		err = out[0].Err
	}
	if err != nil {
		return 0, err
	}
	return out[0].Position, nil
}

// putAlways repeats a row until it is answered.
func putAlways(t *testing.T, st storage.Store, queue string, n uint64) (position uint64) {
	t.Helper()
	waitFor(t, "row "+strconv.FormatUint(n, 10), func() bool {
		var err error
		if position, err = put(t.Context(), st, queue, n); err != nil && !errors.Is(err, sdk.Unavailable) {
			t.Error(err)
		}
		return err == nil
	})
	return position
}

// TestFailoverSynchronous: the server is killed while rows are written; the standby
// takes over, and has all that was answered. The former one comes back by mistake, and
// is not used.
func TestFailoverSynchronous(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.main.Set("synchronous_standby_names", "*")
	waitFor(t, "the standby is synchronous", func() bool {
		return p.main.SQL("postgres", "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1"
	})
	const writers, each = 4, 40
	positions := make([][]uint64, writers)
	half := make(chan struct{}, writers)
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for n := range uint64(each) {
				positions[w] = append(positions[w], putAlways(t, p.Store, fmt.Sprint("queue-", w), n+1))
				if n == each/2 {
					half <- struct{}{}
				}
			}
		})
	}
	<-half
	p.main.Kill()
	p.standby.Promote()
	writing.Wait()
	check := func() {
		for w := range writers {
			rows, err := p.Queues.Read(t.Context(), time.Now(), fmt.Sprint("queue-", w), 0, storage.Page{Messages: 2 * each})
			if err != nil || len(rows) != each {
				t.Fatalf("queue %d: %d rows of %d: %v", w, len(rows), each, err)
			}
			for i, r := range rows {
				if string(r.Payload) != strconv.Itoa(i+1) || r.Position != positions[w][i] {
					t.Errorf("queue %d: row %s at %d in place %d, which was answered with %d", w, r.Payload, r.Position, i+1, positions[w][i])
				}
			}
			if !slices.IsSorted(positions[w]) {
				t.Errorf("queue %d: positions %v", w, positions[w])
			}
		}
	}
	check()
	p.standby.Set("synchronous_standby_names", "")
	p.main.Run()
	p.standby.SQL("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'commucat'")
	putAlways(t, p.Store, "later", 1)
	if n := p.main.SQL("commucat", "SELECT count(*) FROM commucat.queue WHERE name = 'later'"); n != "0" {
		t.Error("the former server was written to")
	}
	check()
}

// TestFailoverAsynchronous: the server falls silent, keeping its connections, and the
// standby that takes over lacks what devices have seen already. Positions and versions go
// on above that.
func TestFailoverAsynchronous(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.Store = openPairWithin(t, "6s", p.main, p.standby)
	key := storage.Key{Kind: "k", ID: "id"}
	version := func() uint64 {
		t.Helper()
		var got []storage.Record
		waitFor(t, "the record is read", func() (ok bool) {
			var err error
			got, err = p.Directory.Get(t.Context(), time.Now(), []storage.Key{key})
			return err == nil
		})
		return got[0].Version
	}
	commit := func(value string) {
		t.Helper()
		waitFor(t, "the record is written", func() bool {
			return p.Directory.Commit(t.Context(), time.Now(), []storage.Write{{Key: key, Expect: storage.AnyVersion, Value: []byte(value)}}) == nil
		})
	}
	first := putAlways(t, p.Store, "q", 1)
	commit("one")
	p.follows(t)
	p.standby.Set("primary_conninfo", "")
	waitFor(t, "the standby is cut off", func() bool {
		return p.main.SQL("postgres", "SELECT count(*) FROM pg_stat_replication") == "0"
	})
	var seen uint64
	for n := uint64(2); n <= 50; n++ {
		seen = putAlways(t, p.Store, "q", n)
	}
	for range 100 { // a sequence is written ahead by 32
		commit("two")
	}
	newest := version()
	defer p.main.Freeze()()
	p.standby.Promote()

	next := putAlways(t, p.Store, "q", 51)
	if next <= seen {
		t.Errorf("position %d was given out again, up to %d were", next, seen)
	}
	if after := putAlways(t, p.Store, "q", 52); after != next+1 {
		t.Errorf("position %d behind %d: the floor counts once", after, next)
	}
	if n := putAlways(t, p.Store, "new", 1); n <= seen {
		t.Errorf("a new queue begins at %d", n)
	}
	rows, err := p.Queues.Read(t.Context(), time.Now(), "q", seen, storage.Page{})
	if err != nil || len(rows) != 2 {
		t.Errorf("a device that has seen all gets %d rows: %v", len(rows), err)
	}
	if rows, err = p.Queues.Read(t.Context(), time.Now(), "q", 0, storage.Page{}); err != nil || len(rows) != 3 || rows[0].Position != first {
		t.Errorf("%d rows: %v", len(rows), err)
	}
	commit("three")
	if v := version(); v <= newest {
		t.Errorf("version %d was given out again, up to %d were", v, newest)
	}
	// Another node, started after all that, goes on in the same history.
	other := openPairWithin(t, "4s", p.main, p.standby)
	if after := putAlways(t, other, "q", 53); after != next+2 {
		t.Errorf("position %d behind %d", after, next+1)
	}
	// The new server's positions are ahead of its clock, which does not help when it goes
	// back meanwhile.
	dump := filepath.Join(p.standby.Dir, "dump")
	p.standby.Tool("pg_dump", "--format", "custom", "--schema", "commucat", "--file", dump, "commucat")
	for n := uint64(54); n <= 60; n++ {
		seen = putAlways(t, other, "q", n)
	}
	p.standby.SQL("postgres", "DROP DATABASE commucat WITH (FORCE)")
	p.standby.SQL("postgres", "CREATE DATABASE commucat OWNER commucat")
	p.standby.Tool("pg_restore", "--dbname", "commucat", dump)
	if n := putAlways(t, other, "q", 61); n <= seen {
		t.Errorf("restored: position %d was given out again, up to %d were", n, seen)
	}
}

// TestStandbyGone: with a synchronous standby that does not answer nothing is
// acknowledged, also not when somebody breaks the wait off.
func TestStandbyGone(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	putAlways(t, p.Store, "q", 1)
	p.main.Set("synchronous_standby_names", "*")
	waitFor(t, "the standby is synchronous", func() bool {
		return p.main.SQL("postgres", "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1"
	})
	thaw := p.standby.Freeze()
	failed := make(chan error, 1)
	go func() { _, err := put(context.Background(), p.Store, "q", 2); failed <- err }()
	const waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
	waitFor(t, "the commit waits", func() bool { return p.main.SQL("postgres", "SELECT count(*) "+waiting) != "0" })
	p.main.SQL("postgres", "SELECT pg_cancel_backend(pid) "+waiting)
	if err := <-failed; !errors.Is(err, sdk.Unavailable) || !strings.Contains(err.Error(), "standby") {
		t.Errorf("the wait was broken off: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := put(ctx, p.Store, "q", 2); !errors.Is(err, sdk.Unavailable) {
		t.Errorf("without the standby: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := p.Ready(ctx); !errors.Is(err, sdk.Unavailable) {
		t.Errorf("ready: %v", err)
	}
	thaw()
	second := putAlways(t, p.Store, "q", 2)
	rows, err := p.Queues.Read(t.Context(), time.Now(), "q", 0, storage.Page{})
	if err != nil || len(rows) != 2 || rows[1].Position != second {
		t.Errorf("%+v %v", rows, err)
	}
	waitFor(t, "it is ready again", func() bool { return p.Ready(t.Context()) == nil })
}
