package plugintest

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// StorageOpen opens the store whose data lies in dir, an existing folder that is
// the store's own. Opened again after Close, or after a crash, it gives the same
// data. (A store elsewhere takes the folder's name as the name of its database.)
type StorageOpen func(ctx context.Context, dir string) (storage.Store, error)

// StorageOptions say what the suite may ask.
type StorageOptions struct {
	// Forgets says that nothing survives Close: restarts and crashes are left out.
	Forgets bool
	// Source says that the store has the trait of that name. Every open shows one and the
	// same database, which has something in it.
	Source bool
	// Victim says that the test binary's TestMain calls StorageVictim, so that a
	// child process may be killed in the middle of an append.
	Victim bool
	// Crash kills the process that holds the stores, without a warning; the next
	// open starts another. nil where they live in this process.
	Crash func(t testing.TB)
	// Variables are set in the victim's environment ("NAME=value").
	Variables []string
}

// Storage runs the conformance suite of sdk/storage against every part that the
// store offers. It needs the race detector to say all it can.
func Storage(t *testing.T, open StorageOpen, o StorageOptions) { StorageCases(Wrap(t), open, o) }

// StorageCases is Storage for any T.
func StorageCases(t T, open StorageOpen, o StorageOptions) {
	t.Helper()
	k := &storageKit{open: open, o: o}
	s, _ := k.fresh(t)
	groups := []struct {
		name  string
		there bool
		cases map[string]func(T, *storageKit)
	}{
		{"source", o.Source, sourceCases},
		{"queues", !o.Source && s.Queues != nil, queueCases},
		{"directory", !o.Source && s.Directory != nil, directoryCases},
		{"inventory", !o.Source && s.Inventory != nil && s.Queues != nil && s.Directory != nil, inventoryCases},
		{"positions", !o.Source && s.Positions != nil && s.Queues != nil, positionCases},
		{"snapshots", !o.Source && s.Snapshots != nil && s.Queues != nil && s.Directory != nil, snapshotCases},
		{"routes", s.Routes != nil, routeCases},
		{"presence", s.Presence != nil, presenceCases},
		{"cache", s.Cache != nil, cacheCases},
		{"limiter", s.Limiter != nil, limiterCases},
		{"bus", s.Bus != nil, busCases},
	}
	some := false
	for _, g := range groups {
		if !g.there {
			continue
		}
		some = true
		t.Run(g.name, func(t T) {
			for name, f := range g.cases {
				t.Run(name, func(t T) { f(t, k) })
			}
		})
	}
	if !some {
		t.Fatal("the store offers no part")
	}
	if o.Crash != nil {
		s, _ = k.fresh(t) // a case has killed the process of the first one
	}
	if s.Ready != nil {
		if err := s.Ready(t.Context()); err != nil {
			t.Errorf("a healthy store is not ready: %v", err)
		}
	}
}

// storageKit makes stores for the cases.
type storageKit struct {
	open StorageOpen
	o    StorageOptions
}

// fresh gives an empty store and its folder.
func (k *storageKit) fresh(t T) (storage.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s := k.at(t, dir)
	if !k.o.Source && s.Inventory != nil {
		empty(t, s.Inventory)
	}
	return s, dir
}

// empty ends the case before it writes into what somebody else keeps, or what another case
// left.
func empty(t T, i storage.Inventory) {
	t.Helper()
	for _, part := range []struct {
		what string
		list func(ctx context.Context, after string, limit int) ([]string, error)
	}{{"records of the kind", i.Kinds}, {"the queue", i.Queues}, {"the mark", i.Marks}} {
		names, err := part.list(t.Context(), "", 1)
		if err != nil {
			t.Fatalf("look whether the storage is empty: %v", err)
		}
		if len(names) > 0 {
			t.Fatalf("the storage is not empty when it is first opened: it holds %s %q. Nothing was written. "+
				"The suite opens many storages and each must be its own: name a schema, a database or a file that differs each time, "+
				"in a configuration of 'plugin check' by {id}, for example schema = \"check_{id}\"", part.what, names[0])
		}
	}
}

// at opens the store in dir until the test ends.
func (k *storageKit) at(t T, dir string) storage.Store {
	t.Helper()
	s, err := k.open(context.Background(), dir)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { k.close(t, s) })
	return s
}

// again closes s and opens its folder again.
func (k *storageKit) again(t T, s storage.Store, dir string) storage.Store {
	t.Helper()
	if k.o.Forgets {
		return s
	}
	k.close(t, s)
	return k.at(t, dir)
}

func (k *storageKit) close(t T, s storage.Store) {
	t.Helper()
	if s.Close == nil {
		return
	}
	if err := s.Close(context.Background()); err != nil {
		t.Errorf("close: %v", err)
	}
}

// epoch is the suite's clock at its start.
var epoch = time.Date(2026, 3, 14, 15, 9, 26, 535_897_000, time.UTC)

// message makes a row that lives an hour; n makes its id and body.
func message(queue string, n int) storage.Append {
	a := storage.Append{Queue: queue, Payload: fmt.Appendf(nil, "body %d of %q", n, queue), Expires: epoch.Add(time.Hour)}
	binary.BigEndian.PutUint64(a.ID[4:], uint64(n)*0x9e3779b97f4a7c15+1)
	return a
}

func messages(queue string, from, n int) []storage.Append {
	rows := make([]storage.Append, n)
	for i := range rows {
		rows[i] = message(queue, from+i)
	}
	return rows
}

// put appends rows that must all be accepted and gives their positions.
func put(t testing.TB, s storage.Store, rows ...storage.Append) []uint64 {
	t.Helper()
	out, err := s.Queues.Append(t.Context(), epoch, storage.Batch{Rows: rows})
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	if len(out) != len(rows) {
		t.Fatalf("%d results for %d rows", len(out), len(rows))
	}
	p := make([]uint64, len(out))
	for i, r := range out {
		if r.Err != nil || r.Position == 0 {
			t.Fatalf("row %d: position %d, error %v", i, r.Position, r.Err)
		}
		p[i] = r.Position
	}
	return p
}

// all reads a queue to its end, in pages of 100.
func all(t testing.TB, s storage.Store, now time.Time, queue string) []storage.Envelope {
	t.Helper()
	var out []storage.Envelope
	for after := uint64(0); ; {
		page, err := s.Queues.Read(t.Context(), now, queue, after, storage.Page{Messages: 100})
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		for _, e := range page {
			if e.Position <= after {
				t.Fatalf("position %d after %d", e.Position, after)
			}
			after = e.Position
		}
		if len(page) == 0 {
			return out
		}
		out = append(out, page...)
	}
}

// check compares a queue with the rows expected, by order, id, body and expiry.
func check(t testing.TB, s storage.Store, queue string, want ...storage.Append) {
	t.Helper()
	got := all(t, s, epoch, queue)
	if len(got) != len(want) {
		t.Fatalf("queue %q has %d rows, want %d", queue, len(got), len(want))
	}
	for i, e := range got {
		w := want[i]
		if e.ID != w.ID || string(e.Payload) != string(w.Payload) {
			t.Fatalf("row %d of %q: id %x with %d bytes, want %x with %d", i, queue, e.ID, len(e.Payload), w.ID, len(w.Payload))
		}
		if early := w.Expires.Sub(e.Expires); early > 0 || early < -time.Second {
			t.Fatalf("row %d of %q expires %v, want %v", i, queue, e.Expires, w.Expires)
		}
	}
}

// folder is a fresh folder that a victim shares.
func folder(t T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
