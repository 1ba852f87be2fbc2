package plugintest

import (
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/commucat/commucat/sdk/storage"
	"pgregory.net/rapid"
)

// queueModel is what a store of queues must look like from outside.
type queueModel struct {
	now    time.Time
	queues map[string][]modelRow
	last   map[string]uint64
}

type modelRow struct {
	storage.Append
	position uint64
}

func (m *queueModel) alive(q string) []modelRow {
	return slices.DeleteFunc(slices.Clone(m.queues[q]), func(r modelRow) bool { return !m.now.Before(r.Expires) })
}

func (m *queueModel) append(t *rapid.T, s storage.Store, batch storage.Batch) {
	out, err := s.Queues.Append(t.Context(), m.now, batch)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	for i, r := range batch.Rows {
		rows := m.alive(r.Queue)
		at := slices.IndexFunc(rows, func(x modelRow) bool { return x.ID == r.ID })
		switch {
		case at >= 0:
			if !out[i].Duplicate || out[i].Position != rows[at].position || out[i].Err != nil {
				t.Fatalf("row %d is a duplicate of position %d: %+v", i, rows[at].position, out[i])
			}
		case batch.Quota.Messages > 0 && uint64(len(rows)) >= batch.Quota.Messages:
			if out[i].Err == nil {
				t.Fatalf("row %d exceeds the quota: %+v", i, out[i])
			}
		default:
			if out[i].Err != nil || out[i].Duplicate || out[i].Position <= m.last[r.Queue] {
				t.Fatalf("row %d is new after position %d: %+v", i, m.last[r.Queue], out[i])
			}
			m.last[r.Queue] = out[i].Position
			m.queues[r.Queue] = append(rows, modelRow{r, out[i].Position})
		}
	}
}

func (m *queueModel) check(t *rapid.T, s storage.Store) {
	for q := range m.queues {
		want := m.alive(q)
		got, err := s.Queues.Read(t.Context(), m.now, q, 0, storage.Page{})
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %d rows, want %d (%v)", q, len(got), len(want), err)
		}
		for i := range got {
			if got[i].Position != want[i].position || got[i].ID != want[i].ID || string(got[i].Payload) != string(want[i].Payload) {
				t.Fatalf("%s: row %d is %d %x, want %d %x", q, i, got[i].Position, got[i].ID, want[i].position, want[i].ID)
			}
		}
	}
}

// checkModel is rapid.Check with fewer histories where each takes long, unless the
// flag asks for other than its default number.
func checkModel(t T, property func(*rapid.T)) {
	t.Helper()
	if checks := flag.Lookup("rapid.checks"); modelChecks != "" && checks != nil && checks.Value.String() == checks.DefValue {
		if err := checks.Value.Set(modelChecks); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = checks.Value.Set(checks.DefValue) }()
	}
	rapid.Check(t, property)
}

// queuesModel compares random histories with the model.
func queuesModel(t T, k *storageKit) {
	s, dir := k.fresh(t)
	run := 0
	checkModel(t, func(rt *rapid.T) {
		run++
		names := []string{fmt.Sprintf("%d a", run), fmt.Sprintf("%d b", run), fmt.Sprintf("%d c", run)}
		m := &queueModel{now: epoch.Truncate(time.Second), queues: map[string][]modelRow{}, last: map[string]uint64{}}
		name := rapid.SampledFrom(names)
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				b := storage.Batch{Quota: storage.Quota{Messages: uint64(rapid.SampledFrom([]int{0, 0, 20}).Draw(rt, "quota"))}}
				for range rapid.IntRange(1, 30).Draw(rt, "rows") {
					r := message(name.Draw(rt, "queue"), rapid.IntRange(0, 60).Draw(rt, "id"))
					r.Expires = m.now.Add(time.Duration(rapid.IntRange(1, 300).Draw(rt, "ttl")) * time.Second)
					b.Rows = append(b.Rows, r)
				}
				m.append(rt, s, b)
			},
			"done": func(rt *rapid.T) {
				q := name.Draw(rt, "queue")
				high := m.last[q]
				low := high - min(high, 100)
				position := func(label string) uint64 { return rapid.Uint64Range(low, high+2).Draw(rt, label) }
				d := storage.Done{Queue: q}
				if rapid.Bool().Draw(rt, "cursor?") {
					d.Cursor = position("cursor")
				}
				for range rapid.IntRange(0, 3).Draw(rt, "ranges") {
					from := position("from")
					d.Ranges = append(d.Ranges, [2]uint64{from, from + rapid.Uint64Range(0, 5).Draw(rt, "length")})
				}
				if err := s.Queues.Done(rt.Context(), []storage.Done{d}); err != nil {
					rt.Fatalf("done: %v", err)
				}
				m.queues[q] = slices.DeleteFunc(m.queues[q], func(r modelRow) bool {
					return r.position <= d.Cursor || slices.ContainsFunc(d.Ranges, func(x [2]uint64) bool {
						return x[0] <= r.position && r.position <= x[1]
					})
				})
			},
			"time": func(rt *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(1, 200).Draw(rt, "seconds")) * time.Second)
			},
			"purge": func(rt *rapid.T) {
				if _, err := s.Queues.Purge(rt.Context(), m.now, rapid.IntRange(1, 50).Draw(rt, "limit")); err != nil {
					rt.Fatalf("purge: %v", err)
				}
			},
			"drop": func(rt *rapid.T) {
				q := name.Draw(rt, "queue")
				if _, err := s.Queues.Drop(rt.Context(), q); err != nil {
					rt.Fatalf("drop: %v", err)
				}
				m.queues[q] = nil
			},
			"restart": func(rt *rapid.T) {
				if rapid.IntRange(0, 4).Draw(rt, "restart?") == 0 {
					s = k.again(t, s, dir)
				}
			},
			"": func(rt *rapid.T) { m.check(rt, s) },
		})
	})
}

// directoryModel compares random commits with a map.
func directoryModel(t T, k *storageKit) {
	s, dir := k.fresh(t)
	run := 0
	checkModel(t, func(rt *rapid.T) {
		run++
		kind := fmt.Sprintf("kind%d", run)
		have := map[string]storage.Record{}
		highest := map[string]uint64{}
		ids := rapid.SampledFrom([]string{"a", "a/b", "a/c", "b", "猫", "\xff", "\xff\xff"})
		rt.Repeat(map[string]func(*rapid.T){
			"commit": func(rt *rapid.T) { commitModel(rt, s, kind, ids, have, highest) },
			"list": func(rt *rapid.T) {
				r := storage.Range{
					Kind: kind, Prefix: rapid.SampledFrom([]string{"", "a", "a/", "\xff"}).Draw(rt, "prefix"),
					After: rapid.SampledFrom([]string{"", "a", "a/b", "zz"}).Draw(rt, "after"), Limit: rapid.IntRange(1, 8).Draw(rt, "limit"),
				}
				compareList(rt, s, r, have)
			},
			"restart": func(rt *rapid.T) {
				if rapid.IntRange(0, 4).Draw(rt, "restart?") == 0 {
					s = k.again(t, s, dir)
				}
			},
		})
	})
}

func commitModel(rt *rapid.T, s storage.Store, kind string, ids *rapid.Generator[string], have map[string]storage.Record, highest map[string]uint64) {
	var w []storage.Write
	ok := true
	for _, id := range rapid.SliceOfNDistinct(ids, 1, 4, rapid.ID[string]).Draw(rt, "ids") {
		x := storage.Write{Key: storage.Key{Kind: kind, ID: id}, Expect: storage.AnyVersion}
		switch rapid.IntRange(0, 3).Draw(rt, "expect") {
		case 0:
			x.Expect = have[id].Version
		case 1:
			x.Expect = 0
		case 2:
			x.Expect = have[id].Version + 1
		}
		ok = ok && (x.Expect == storage.AnyVersion || x.Expect == have[id].Version)
		x.CheckOnly = rapid.IntRange(0, 4).Draw(rt, "check only") == 0
		if rapid.Bool().Draw(rt, "value?") {
			x.Value = []byte(rapid.String().Draw(rt, "value"))
		}
		w = append(w, x)
	}
	err := s.Directory.Commit(rt.Context(), epoch, w)
	if ok != (err == nil) {
		rt.Fatalf("commit: %v, want success: %v", err, ok)
	}
	var keys []storage.Key
	for _, x := range w {
		keys = append(keys, x.Key)
		if !ok || x.CheckOnly {
			continue
		}
		if delete(have, x.ID); x.Value != nil {
			have[x.ID] = storage.Record{Key: x.Key, Value: x.Value}
		}
	}
	got, err := s.Directory.Get(rt.Context(), epoch, keys)
	if err != nil {
		rt.Fatalf("get: %v", err)
	}
	for i, x := range w {
		old, there := have[x.ID]
		if there != (got[i].Version != 0) || string(old.Value) != string(got[i].Value) {
			rt.Fatalf("%q is %+v, want %+v", x.ID, got[i], old)
		}
		if !there {
			continue
		}
		if old.Version == 0 { // written just now
			if got[i].Version <= highest[x.ID] {
				rt.Fatalf("%q has version %d after %d", x.ID, got[i].Version, highest[x.ID])
			}
			highest[x.ID] = got[i].Version
		} else if old.Version != got[i].Version {
			rt.Fatalf("%q has version %d, want %d", x.ID, got[i].Version, old.Version)
		}
		old.Version = got[i].Version
		have[x.ID] = old
	}
}
