package sqlite

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/storage"
	"pgregory.net/rapid"
)

func TestPrints(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var p prints
		have := map[uint32]int{}
		value := rapid.Uint32Range(1, 40) // few, so that runs and equal ones are common
		for range rapid.IntRange(0, 200).Draw(rt, "steps") {
			f := value.Draw(rt, "print")
			if rapid.Bool().Draw(rt, "add") {
				p.add(f)
				have[f]++
			} else {
				p.remove(f)
				have[f] = max(0, have[f]-1)
			}
			for f := range uint32(41) {
				if f != 0 && p.has(f) != (have[f] > 0) {
					rt.Fatalf("%d: has %v, want %d of it", f, p.has(f), have[f])
				}
			}
		}
	})
}

// TestCursorBeyond: a cursor above every position deletes what is there, not what
// comes later.
func TestCursorBeyond(t *testing.T) {
	for _, e := range engines {
		s, now := openTest(t, t.TempDir(), Config{Queues: e}, options{}), time.Unix(1e9, 0)
		x := s.Queues.(*queues).index
		evict := func() {
			st := x.stripe("q")
			st.mu.Lock()
			defer st.mu.Unlock()
			if q := st.queues["q"]; q != nil {
				x.forget(st, q)
			}
		}
		for i, cursor := range []uint64{1000, ^uint64(0), 3} {
			r, err := appendRow(t, s, i)
			if err != nil {
				t.Fatal(err)
			}
			evict()
			if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: "q", Cursor: max(cursor, r.Position)}}); err != nil {
				t.Fatal(err)
			}
			if page, err := s.Queues.Read(t.Context(), now, "q", 0, storage.Page{}); err != nil || len(page) != 0 {
				t.Fatalf("%s: %d rows are left (%v)", e, len(page), err)
			}
		}
	}
}

func BenchmarkPrints(b *testing.B) {
	var p prints
	for range 10_000 {
		p.add(rand.Uint32() | 1<<31)
	}
	b.ReportAllocs()
	for b.Loop() {
		f := rand.Uint32() | 1<<31
		if !p.has(f) {
			p.add(f)
			p.remove(f)
		}
	}
}
