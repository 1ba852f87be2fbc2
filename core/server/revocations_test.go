package server

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
)

func TestRevocations(t *testing.T) {
	path := filepath.Join(t.TempDir(), revocationsFile)
	open := func() *revocations {
		t.Helper()
		r, err := openRevocations(path)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := open()
	for _, id := range []string{"one", "two", "one", "three"} {
		if forgotten, err := r.add([]string{"door", "side"}, id, ""); forgotten || err != nil {
			t.Fatal(forgotten, err)
		}
	}
	if got := r.of("door"); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("door: %q", got)
	}
	if err := r.done("door", []string{"one", "three"}); err != nil {
		t.Fatal(err)
	}
	r = open() // as after a crash
	if got := r.of("door"); !slices.Equal(got, []string{"two"}) {
		t.Errorf("door: %q", got)
	}
	if got := r.of("side"); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("side: %q", got)
	}
	// Revoked anew while it is told: it is told again, unless it may come again.
	for i, want := range [][]string{{"two", "three"}, {"three"}} {
		if _, err := r.add([]string{"side"}, "two", ""); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			if err := r.drop("side", "two"); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.done("side", []string{"one", "two"}); err != nil {
			t.Fatal(err)
		}
		if got := r.of("side"); !slices.Equal(got, want) {
			t.Errorf("side: %q, want %q", got, want)
		}
	}
	first, second := r.hold("two"), r.hold("two")
	for _, release := range []func(){first, second} {
		if got := r.of("door"); len(got) != 0 {
			t.Errorf("held, and told all the same: %q", got)
		}
		if got := open().of("door"); !slices.Equal(got, []string{"two"}) {
			t.Errorf("held, and lost by a start: %q", got)
		}
		release()
	}
	if got := r.of("door"); !slices.Equal(got, []string{"two"}) {
		t.Errorf("released: %q", got)
	}
	if err := r.done("door", []string{"two"}); err != nil {
		t.Fatal(err)
	}
	if _, there := open().pending["door"]; there {
		t.Error("a transport with nothing to be told stays in the file")
	}
	many := make([]string, maxRevocations)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	r.pending["door"] = many
	if forgotten, err := r.add([]string{"door"}, "last", ""); !forgotten || err != nil {
		t.Error(forgotten, err)
	}
	if got := r.of("door"); len(got) != maxRevocations || got[0] != "1" || got[len(got)-1] != "last" {
		t.Errorf("%d ids, %s to %s", len(got), got[0], got[len(got)-1])
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openRevocations(path); err == nil {
		t.Error("a broken file was taken for none")
	}
}

// A device that changes its key again and again pushes its own out, but the first: a
// transport that was away knows that one.
func TestRevocationsOfOneDevice(t *testing.T) {
	r, err := openRevocations(filepath.Join(t.TempDir(), revocationsFile))
	if err != nil {
		t.Fatal(err)
	}
	add := func(id, device string) {
		t.Helper()
		if forgotten, err := r.add([]string{"door"}, id, device); forgotten || err != nil {
			t.Fatal(forgotten, err)
		}
	}
	add("link", "")
	add("other", "dev-b")
	want := []string{"link", "other", "key-0"}
	for i := range maxOwnRevocations + 5 {
		add(fmt.Sprint("key-", i), "dev-a")
		if i > 5 {
			want = append(want, fmt.Sprint("key-", i))
		}
	}
	if got := r.of("door"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	// A key of another slot, which the transport knows, is not pushed out by these.
	add("export", "dev-a ~")
	for i := range maxOwnRevocations + 5 {
		add(fmt.Sprint("more-", i), "dev-a")
	}
	if got := r.of("door"); !slices.Contains(got, "key-0") || !slices.Contains(got, "export") {
		t.Errorf("%q", got)
	}
	want = r.of("door")
	if err := r.done("door", want); err != nil || len(r.owners) != 0 {
		t.Error(r.owners, err)
	}
}

// Those who wait for the disk hold up nobody who does not, and are all on it in the end.
func TestRevocationsWaitForTheDiskApart(t *testing.T) {
	path := filepath.Join(t.TempDir(), revocationsFile)
	r, err := openRevocations(path)
	if err != nil {
		t.Fatal(err)
	}
	r.writing.Lock() // the disk hangs
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if _, err := r.add([]string{"door"}, fmt.Sprint(i), ""); err != nil {
				t.Error(err)
			}
		})
	}
	for len(r.of("door")) < 20 {
		runtime.Gosched()
	}
	if err := r.drop("door", "a key that was not revoked"); err != nil {
		t.Error(err)
	}
	r.writing.Unlock()
	all.Wait()
	if again, err := openRevocations(path); err != nil || len(again.of("door")) != 20 {
		t.Error(again, err)
	}
}
