package plugintest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

var inventoryCases = map[string]func(T, *storageKit){
	"names":  inventoryNames,
	"goes":   inventoryGoes,
	"limits": inventoryLimits,
}

// asks are the three methods by their names.
func asks(t testing.TB, s storage.Store) map[string]func(after string, limit int) ([]string, error) {
	type method = func(ctx context.Context, after string, limit int) ([]string, error)
	of := func(ask method) func(string, int) ([]string, error) {
		return func(after string, limit int) ([]string, error) { return ask(t.Context(), after, limit) }
	}
	return map[string]func(string, int) ([]string, error){"queues": of(s.Inventory.Queues), "marks": of(s.Inventory.Marks), "kinds": of(s.Inventory.Kinds)}
}

// inventory goes through the names of one sort, in pages.
func inventory(t testing.TB, s storage.Store, of string, limit int) []string {
	t.Helper()
	ask := asks(t, s)[of]
	var out []string
	for after := ""; ; {
		page, err := ask(after, limit)
		if err != nil || len(page) > limit {
			t.Fatalf("%s after %q: %d names, %v", of, after, len(page), err)
		}
		if len(page) == 0 {
			return out
		}
		for _, n := range page {
			if n <= after {
				t.Fatalf("%s: %q after %q", of, n, after)
			}
			after = n
		}
		out = append(out, page...)
	}
}

// odd names: of every length, and where the order of bytes is not that of lengths.
func oddNames() []string {
	out := []string{"a", "ab", "b", "ab\x00", "a\x00", "a\xff", "\x00", "\xff", "猫", strings.Repeat("z", storage.MaxQueue), strings.Repeat("\xff", storage.MaxQueue)}
	for i := range 60 {
		out = append(out, fmt.Sprintf("device-%d", i*i*7))
	}
	slices.Sort(out)
	return out
}

func inventoryNames(t T, k *storageKit) {
	s, dir := k.fresh(t)
	for _, of := range []string{"queues", "marks", "kinds"} {
		if got := inventory(t, s, of, 10); len(got) != 0 {
			t.Fatalf("an empty store has %s %q", of, got)
		}
	}
	names := oddNames()
	kinds := []string{"a", "a-b", "a.b", "code", "device", strings.Repeat("k", storage.MaxKind)}
	var batch storage.Batch
	for i, n := range names {
		batch.Rows = append(batch.Rows, messages(n, i, 1+i%3)...)
		batch.Marks = append(batch.Marks, storage.Mark{Key: n, Value: []byte{byte(i)}})
	}
	if _, err := s.Queues.Append(t.Context(), epoch, batch); err != nil {
		t.Fatal(err)
	}
	var writes []storage.Write
	for i, kind := range kinds {
		for j := range 1 + 20*(i%2) {
			writes = append(writes, storage.Write{Key: key(kind, fmt.Sprint(j)), Value: []byte("v")})
		}
	}
	commit(t, s, writes...)
	for range 2 {
		for _, limit := range []int{1, 7, 1000} {
			for of, want := range map[string][]string{"queues": names, "marks": names, "kinds": kinds} {
				if got := inventory(t, s, of, limit); !slices.Equal(got, want) {
					t.Fatalf("%s in pages of %d: %q, want %q", of, limit, got, want)
				}
			}
		}
		s = k.again(t, s, dir)
	}
}

// What has been taken out is not named any more.
func inventoryGoes(t T, k *storageKit) {
	s, _ := k.fresh(t)
	gone := messages("gone", 0, 3)
	at := put(t, s, gone...)
	put(t, s, messages("dropped", 0, 3)...)
	put(t, s, messages("kept", 0, 3)...)
	short := message("short", 1)
	short.Expires = epoch.Add(time.Second)
	put(t, s, short)
	marks := storage.Batch{Marks: []storage.Mark{{Key: "kept", Value: []byte{}}, {Key: "gone", Value: []byte("v")}}}
	if _, err := s.Queues.Append(t.Context(), epoch, marks); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Queues.Append(t.Context(), epoch, storage.Batch{Marks: []storage.Mark{{Key: "gone"}}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: "gone", Cursor: at[2]}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Queues.Drop(t.Context(), "dropped"); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Queues.Purge(t.Context(), epoch.Add(time.Minute), 100); err != nil || n != 1 {
		t.Fatalf("purge: %d %v", n, err)
	}
	commit(t, s, storage.Write{Key: key("gone", "1"), Value: []byte("v")}, storage.Write{Key: key("kept", "1"), Value: []byte("v")})
	commit(t, s, storage.Write{Key: key("gone", "1"), Expect: storage.AnyVersion})
	for _, of := range []string{"queues", "marks", "kinds"} {
		if got := inventory(t, s, of, 10); !slices.Equal(got, []string{"kept"}) {
			t.Errorf("%s: %q", of, got)
		}
	}
}

func inventoryLimits(t T, k *storageKit) {
	s, _ := k.fresh(t)
	long := strings.Repeat("x", storage.MaxQueue+1)
	for name, ask := range asks(t, s) {
		if _, err := ask("", 0); sdk.KindOf(err) != sdk.Invalid {
			t.Errorf("%s without a limit: %v", name, err)
		}
		if _, err := ask(long, 1); sdk.KindOf(err) != sdk.Invalid {
			t.Errorf("%s after too long a name: %v", name, err)
		}
	}
}
