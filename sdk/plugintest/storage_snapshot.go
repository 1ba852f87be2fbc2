package plugintest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

var snapshotCases = map[string]func(T, *storageKit){
	"holds":   snapshotHolds,
	"moment":  snapshotMoment,
	"refuses": snapshotRefuses,
}

// opened opens a snapshot in another place, as a restored archive is.
func opened(t T, k *storageKit, dir, name string) storage.Store {
	t.Helper()
	to := t.TempDir()
	entries, err := os.ReadDir(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Rename(filepath.Join(dir, name, e.Name()), filepath.Join(to, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	return k.at(t, to)
}

// snapshotHolds: what was there is in it, what came after is not, and the store goes on.
func snapshotHolds(t T, k *storageKit) {
	s, dir := k.fresh(t)
	before := put(t, s, messages("q", 0, 50)...)
	if _, err := s.Queues.Append(t.Context(), epoch, storage.Batch{Marks: []storage.Mark{{Key: "m", Value: []byte("before")}}}); err != nil {
		t.Fatal(err)
	}
	commit(t, s, storage.Write{Key: key("a", "1"), Value: []byte("before")})
	if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: "q", Cursor: before[9]}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshots.Snapshot(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	put(t, s, messages("q", 50, 5)...)
	commit(t, s, storage.Write{Key: key("a", "1"), Expect: storage.AnyVersion, Value: []byte("after")})
	if err := s.Snapshots.Snapshot(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		rows  int
		value string
	}{"one": {40, "before"}, "two": {45, "after"}} {
		o := opened(t, k, dir, name)
		rows, err := o.Queues.Read(t.Context(), epoch, "q", 0, storage.Page{})
		if err != nil || len(rows) != want.rows {
			t.Errorf("%s: %d rows, want %d, %v", name, len(rows), want.rows, err)
		}
		r, err := o.Directory.Get(t.Context(), epoch, []storage.Key{key("a", "1")})
		if err != nil || string(r[0].Value) != want.value {
			t.Errorf("%s: record %q, want %q, %v", name, r[0].Value, want.value, err)
		}
		m, err := o.Queues.Marks(t.Context(), []string{"m"})
		if err != nil || string(m[0]) != "before" {
			t.Errorf("%s: mark %q, %v", name, m[0], err)
		}
		at := put(t, o, messages("q", 90, 1)...)
		if at[0] <= before[len(before)-1] {
			t.Errorf("%s: position %d is not above %d", name, at[0], before[len(before)-1])
		}
	}
	s = k.again(t, s, dir)
	if rows, err := s.Queues.Read(t.Context(), epoch, "q", 0, storage.Page{}); err != nil || len(rows) != 45 {
		t.Errorf("the store itself: %d rows, want 45, %v", len(rows), err)
	}
}

// snapshotMoment: while somebody writes a record, then a row, and so on, a snapshot never
// shows the one without what came before it.
func snapshotMoment(t T, k *storageKit) {
	s, dir := k.fresh(t)
	const snapshots = 3
	stop, begun := make(chan struct{}), make(chan struct{})
	var failed error
	var group sync.WaitGroup
	group.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if failed = step(t, s, i); failed != nil {
				return
			}
			if i == 0 {
				close(begun)
			}
		}
	})
	<-begun
	for i := range snapshots {
		if err := s.Snapshots.Snapshot(t.Context(), fmt.Sprint("moment-", i)); err != nil {
			t.Errorf("snapshot: %v", err)
		}
	}
	close(stop)
	group.Wait()
	if failed != nil {
		t.Fatalf("writing beside a snapshot: %v", failed)
	}
	for i := range snapshots {
		o := opened(t, k, dir, fmt.Sprint("moment-", i))
		rows, err := o.Queues.Read(t.Context(), epoch, "q", 0, storage.Page{})
		if err != nil {
			t.Fatal(err)
		}
		records := 0
		for after := ""; ; {
			page, err := o.Directory.List(t.Context(), epoch, storage.Range{Kind: "a", After: after, Limit: 500})
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			records += len(page)
			after = page[len(page)-1].ID
		}
		if more := records - len(rows); more != 0 && more != 1 || records == 0 {
			t.Errorf("%d records and %d rows: not of one moment", records, len(rows))
		}
	}
}

func step(t testing.TB, s storage.Store, i int) error {
	err := s.Directory.Commit(t.Context(), epoch, []storage.Write{{Key: key("a", fmt.Sprintf("%08d", i)), Value: []byte("v")}})
	if err == nil {
		_, err = s.Queues.Append(t.Context(), epoch, storage.Batch{Rows: messages("q", i, 1)})
	}
	return err
}

// snapshotRefuses: a name that leads elsewhere or is taken is refused, and nothing is left.
func snapshotRefuses(t T, k *storageKit) {
	s, dir := k.fresh(t)
	for _, name := range []string{"", ".", "..", "a/b", "../x", "a\x00", string(make([]byte, 65))} {
		if err := s.Snapshots.Snapshot(t.Context(), name); sdk.KindOf(err) != sdk.Invalid {
			t.Errorf("name %q: %v", name, err)
		}
	}
	taken := filepath.Join(dir, "taken")
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(taken, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshots.Snapshot(t.Context(), "taken"); err == nil {
		t.Error("a folder that is there was taken")
	}
	if _, err := os.Stat(filepath.Join(taken, "file")); err != nil {
		t.Errorf("what was in it is gone: %v", err)
	}
	if err := s.Snapshots.Snapshot(t.Context(), "free"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
