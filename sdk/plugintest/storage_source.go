package plugintest

import (
	"errors"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

var sourceCases = map[string]func(T, *storageKit){
	"reads":         sourceReads,
	"never writes":  sourceWrites,
	"one moment":    sourceMoment,
	"another place": sourcePlace,
}

// sourceKinds gives the names of everything that a source shows.
func sourceKinds(t T, s storage.Store) []string {
	t.Helper()
	kinds := inventory(t, s, "kinds", 3)
	if len(kinds) == 0 {
		t.Fatal("the source shows nothing; name a database that is one")
	}
	return kinds
}

// sourceList reads a kind in pages, to the first empty one.
func sourceList(t T, s storage.Store, kind string, limit int) (out []storage.Record) {
	t.Helper()
	for after := ""; ; {
		page, err := s.Directory.List(t.Context(), time.Now(), storage.Range{Kind: kind, After: after, Limit: limit})
		if err != nil || len(page) > limit {
			t.Fatalf("%s after %q: %d records, %v", kind, after, len(page), err)
		}
		if len(page) == 0 {
			return out
		}
		for _, r := range page {
			if r.Kind != kind || r.ID <= after || r.Value == nil {
				t.Fatalf("%s %q after %q, with a value: %v", r.Kind, r.ID, after, r.Value != nil)
			}
			after = r.ID
		}
		if out = append(out, page...); len(out) > 1000 {
			return out
		}
	}
}

func sourceReads(t T, k *storageKit) {
	s, _ := k.fresh(t)
	for _, kind := range sourceKinds(t, s) {
		small, large := sourceList(t, s, kind, 7), sourceList(t, s, kind, 500)
		for i := range min(len(small), len(large)) {
			if small[i].ID != large[i].ID || string(small[i].Value) != string(large[i].Value) {
				t.Fatalf("%s: record %d depends on how it is asked for", kind, i)
			}
		}
	}
	for _, queue := range inventory(t, s, "queues", 5) {
		at := uint64(0)
		for range 20 {
			page, err := s.Queues.Read(t.Context(), time.Now(), queue, at, storage.Page{Messages: 5, Bytes: 1 << 20})
			if err != nil || len(page) > 5 {
				t.Fatalf("queue %q: %d rows, %v", queue, len(page), err)
			}
			for _, r := range page {
				if r.Position <= at {
					t.Fatalf("queue %q: position %d after %d", queue, r.Position, at)
				}
				at = r.Position
			}
		}
	}
}

func sourceWrites(t T, k *storageKit) {
	s, _ := k.fresh(t)
	now := time.Now()
	key := storage.Key{Kind: "conformance", ID: "record"}
	_, errAppend := s.Queues.Append(t.Context(), now, storage.Batch{Rows: messages("conformance", 0, 1)})
	_, errDrop := s.Queues.Drop(t.Context(), "conformance")
	_, errRows := s.Queues.Purge(t.Context(), now, 1)
	_, errRecords := s.Directory.Purge(t.Context(), now, 1)
	for name, err := range map[string]error{
		"Append": errAppend, "Drop": errDrop, "Queues.Purge": errRows, "Directory.Purge": errRecords,
		"Done":   s.Queues.Done(t.Context(), []storage.Done{{Queue: "conformance"}}),
		"Commit": s.Directory.Commit(t.Context(), now, []storage.Write{{Key: key, Value: []byte("x")}}),
	} {
		if !errors.Is(err, sdk.Invalid) {
			t.Errorf("%s: %v, want kind invalid", name, err)
		}
	}
}

func sourceMoment(t T, k *storageKit) {
	s, _ := k.fresh(t)
	version := func(s storage.Store) (v uint64) {
		t.Helper()
		for _, kind := range sourceKinds(t, s) {
			for _, r := range sourceList(t, s, kind, 100) {
				if r.Version == 0 || v != 0 && r.Version != v {
					t.Fatalf("%s: version %d beside %d", kind, r.Version, v)
				}
				v = r.Version
			}
		}
		return v
	}
	first := version(s)
	k.close(t, s)
	again, _ := k.fresh(t)
	if v := version(again); v == first && v != 0 {
		t.Errorf("opened anew, its version is %d again", v)
	}
}

func sourcePlace(t T, k *storageKit) {
	s, _ := k.fresh(t)
	for _, kind := range sourceKinds(t, s) {
		all := sourceList(t, s, kind, 100)
		if len(all) < 2 {
			continue
		}
		for _, i := range []int{len(all) - 2, 0, len(all) / 2} {
			page, err := s.Directory.List(t.Context(), time.Now(), storage.Range{Kind: kind, After: all[i].ID, Limit: 1})
			if err != nil || i+1 < len(all) && (len(page) != 1 || page[0].ID != all[i+1].ID) {
				t.Errorf("%s after record %d: %d records, %v", kind, i, len(page), err)
			}
		}
		got, err := s.Directory.Get(t.Context(), time.Now(), []storage.Key{{Kind: kind, ID: "none of these\x00"}})
		if err != nil || len(got) != 1 || got[0].Version != 0 {
			t.Errorf("%s: an absent record is %+v, %v", kind, got, err)
		}
	}
}
