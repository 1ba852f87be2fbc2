package plugintest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

var queueCases = map[string]func(T, *storageKit){
	"append and read":    queuesAppendRead,
	"results per row":    queuesResults,
	"duplicates":         queuesDuplicates,
	"order":              queuesOrder,
	"pages":              queuesPages,
	"done":               queuesDone,
	"done in bulk":       queuesDoneBulk,
	"expiry":             queuesExpiry,
	"purge after reopen": queuesPurgeCold,
	"quota":              queuesQuota,
	"names":              queuesNames,
	"sizes":              queuesSizes,
	"depths":             queuesDepths,
	"drop":               queuesDrop,
	"marks":              queuesMarks,
	"restart":            queuesRestart,
	"lanes at once":      queuesLanes,
	"one queue at once":  queuesContended,
	"model":              queuesModel,
	"killed":             queuesKilled,
	"crashed":            queuesCrashed,
}

func queuesAppendRead(t T, k *storageKit) {
	s, _ := k.fresh(t)
	if out, err := s.Queues.Append(t.Context(), epoch, storage.Batch{}); err != nil || len(out) != 0 {
		t.Fatalf("empty batch: %v %v", out, err)
	}
	a, b := messages("a", 0, 3), messages("b", 10, 2)
	rows := []storage.Append{a[0], b[0], a[1], b[1], a[2]}
	p := put(t, s, rows...)
	if p[0] >= p[2] || p[2] >= p[4] || p[1] >= p[3] {
		t.Fatalf("positions %v do not grow", p)
	}
	if least := uint64(epoch.UnixMicro()); p[0] <= least {
		t.Errorf("positions begin with %d, below the unix time in microseconds: a device that knew another store would never see them", p[0])
	}
	// The payload is the caller's again.
	for i := range rows {
		rows[i].Payload = append([]byte(nil), rows[i].Payload...)
	}
	want := messages("a", 0, 3)
	for _, r := range a {
		clear(r.Payload)
	}
	check(t, s, "a", want...)
	check(t, s, "b", b...)
	check(t, s, "nobody")
	if page, err := s.Queues.Read(t.Context(), epoch, "a", p[0], storage.Page{}); err != nil || len(page) != 2 || page[0].Position != p[2] {
		t.Fatalf("after the first: %d rows, %v", len(page), err)
	}
	if page, err := s.Queues.Read(t.Context(), epoch, "a", ^uint64(0), storage.Page{}); err != nil || len(page) != 0 {
		t.Fatalf("after the last position there is: %d rows, %v", len(page), err)
	}
}

func queuesResults(t T, k *storageKit) {
	s, _ := k.fresh(t)
	rows := messages("q", 0, 5)
	rows[1].Queue = ""
	rows[2].Payload = make([]byte, storage.MaxPayload+1)
	rows[3].Expires = time.Time{}
	out, err := s.Queues.Append(t.Context(), epoch, storage.Batch{Rows: rows})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range out {
		if bad := i >= 1 && i <= 3; bad != (sdk.KindOf(r.Err) == sdk.Invalid) || !bad && r.Err != nil {
			t.Errorf("row %d: %v", i, r.Err)
		}
	}
	check(t, s, "q", rows[0], rows[4])
}

func queuesDuplicates(t T, k *storageKit) {
	s, dir := k.fresh(t)
	again := func(n int, want uint64, duplicate bool, now time.Time) uint64 {
		t.Helper()
		r := message("q", n)
		r.Payload = []byte("another body")
		r.Expires = now.Add(time.Hour)
		out, err := s.Queues.Append(t.Context(), now, storage.Batch{Rows: []storage.Append{r}})
		if err != nil || out[0].Err != nil || out[0].Duplicate != duplicate || duplicate && out[0].Position != want {
			t.Fatalf("append again: %+v %v, want position %d, duplicate %v", out, err, want, duplicate)
		}
		return out[0].Position
	}
	// More rows than any list that is searched one by one.
	p := put(t, s, messages("q", 0, 40)...)
	for n := range 40 {
		again(n, p[n], true, epoch)
	}
	// Twice in one batch.
	r := message("q", 50)
	out, err := s.Queues.Append(t.Context(), epoch, storage.Batch{Rows: []storage.Append{r, r}})
	if err != nil || out[0].Duplicate || !out[1].Duplicate || out[0].Position != out[1].Position {
		t.Fatalf("twice in a batch: %+v %v", out, err)
	}
	// The same id in another queue is another row.
	r.Queue = "other"
	if out, err = s.Queues.Append(t.Context(), epoch, storage.Batch{Rows: []storage.Append{r}}); err != nil || out[0].Duplicate {
		t.Fatalf("other queue: %+v %v", out, err)
	}
	s = k.again(t, s, dir)
	again(7, p[7], true, epoch)
	check(t, s, "q", append(messages("q", 0, 40), message("q", 50))...)
	// A row that was done does not count any more, nor does one that expired.
	if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: "q", Ranges: [][2]uint64{{p[7], p[7]}}}}); err != nil {
		t.Fatal(err)
	}
	if n := again(7, 0, false, epoch); n <= p[39] {
		t.Fatalf("position %d after %d", n, p[39])
	}
	if n := again(8, 0, false, epoch.Add(2*time.Hour)); n <= p[39] {
		t.Fatalf("position %d after %d", n, p[39])
	}
	if rows := all(t, s, epoch.Add(2*time.Hour), "q"); len(rows) != 1 || string(rows[0].Payload) != "another body" {
		t.Fatalf("%d rows after the others expired", len(rows))
	}
}

func queuesOrder(t T, k *storageKit) {
	s, dir := k.fresh(t)
	last := uint64(0)
	for round := range 4 {
		p := put(t, s, messages("q", 100*round, 20)...)
		for _, p := range p {
			if p <= last {
				t.Fatalf("round %d: position %d after %d", round, p, last)
			}
			last = p
		}
		// Emptied, and forgotten by a restart: positions go on all the same.
		if round%2 == 0 {
			if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: "q", Cursor: last}}); err != nil {
				t.Fatal(err)
			}
		} else if _, err := s.Queues.Drop(t.Context(), "q"); err != nil {
			t.Fatal(err)
		}
		check(t, s, "q")
		s = k.again(t, s, dir)
	}
}

func queuesPages(t T, k *storageKit) {
	s, _ := k.fresh(t)
	rows := messages("q", 0, 10)
	for i := range rows {
		rows[i].Payload = bytes.Repeat([]byte{byte(i)}, 1000)
	}
	p := put(t, s, rows...)
	for _, c := range []struct {
		name  string
		page  storage.Page
		after uint64
		want  int
	}{
		{"all", storage.Page{}, 0, 10},
		{"by number", storage.Page{Messages: 3}, p[0], 3},
		{"by bytes, exceeded", storage.Page{Bytes: 2500}, 0, 3},
		{"at least one", storage.Page{Bytes: 1}, p[4], 1},
		{"both", storage.Page{Messages: 2, Bytes: 1 << 20}, p[8], 1},
		{"none left", storage.Page{Messages: 5}, p[9], 0},
	} {
		page, err := s.Queues.Read(t.Context(), epoch, "q", c.after, c.page)
		if err != nil || len(page) != c.want {
			t.Errorf("%s: %d rows, want %d (%v)", c.name, len(page), c.want, err)
		}
	}
}

func queuesDone(t T, k *storageKit) {
	s, dir := k.fresh(t)
	rows := messages("q", 0, 10)
	p := put(t, s, rows...)
	put(t, s, messages("other", 0, 1)...)
	done := func(d ...storage.Done) {
		t.Helper()
		if err := s.Queues.Done(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	done()
	done(storage.Done{Queue: "nobody", Cursor: 99}, storage.Done{Queue: "q"})
	check(t, s, "q", rows...)
	done(storage.Done{Queue: "q", Cursor: p[1], Ranges: [][2]uint64{{p[3], p[4]}, {p[8], p[8]}, {p[9] + 10, p[9] + 20}}})
	left := []storage.Append{rows[2], rows[5], rows[6], rows[7], rows[9]}
	check(t, s, "q", left...)
	done(storage.Done{Queue: "q", Cursor: p[1]}, storage.Done{Queue: "q", Ranges: [][2]uint64{{p[3], p[4]}}})
	check(t, s, "q", left...)
	s = k.again(t, s, dir)
	check(t, s, "q", left...)
	// Without any use of the queue in between.
	done(storage.Done{Queue: "q", Cursor: p[2], Ranges: [][2]uint64{{p[6], p[6]}}})
	check(t, s, "q", rows[5], rows[7], rows[9])
	done(storage.Done{Queue: "q", Cursor: ^uint64(0)})
	check(t, s, "q")
	check(t, s, "other", messages("other", 0, 1)...)
	if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: ""}}); sdk.KindOf(err) != sdk.Invalid {
		t.Errorf("no queue: %v", err)
	}
}

func queuesDoneBulk(t T, k *storageKit) {
	s, dir := k.fresh(t)
	rows := messages("q", 0, 700)
	p := put(t, s, rows...)
	if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: "q", Cursor: p[299], Ranges: [][2]uint64{{p[400], p[599]}}}}); err != nil {
		t.Fatal(err)
	}
	left := append(append([]storage.Append{}, rows[300:400]...), rows[600:]...)
	check(t, s, "q", left...)
	p2 := put(t, s, messages("q", 0, 50)...) // ids that are free again
	check(t, s, "q", append(left, messages("q", 0, 50)...)...)
	s = k.again(t, s, dir)
	check(t, s, "q", append(left, messages("q", 0, 50)...)...)
	if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: "q", Cursor: p2[49]}}); err != nil {
		t.Fatal(err)
	}
	check(t, s, "q")
}

func queuesExpiry(t T, k *storageKit) {
	s, _ := k.fresh(t)
	rows := messages("q", 0, 6)
	for i := range rows {
		rows[i].Expires = epoch.Add(time.Duration(i%3+1) * 10 * time.Second)
	}
	put(t, s, rows...)
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{0, 6}, {9 * time.Second, 6}, {12 * time.Second, 4}, {19 * time.Second, 4}, {22 * time.Second, 2}, {32 * time.Second, 0}, {-365 * 24 * time.Hour, 6}} {
		if got := all(t, s, epoch.Add(c.after), "q"); len(got) != c.want {
			t.Errorf("after %v: %d rows, want %d", c.after, len(got), c.want)
		}
	}
	purge := func(after time.Duration, limit, want int) {
		t.Helper()
		if n, err := s.Queues.Purge(t.Context(), epoch.Add(after), limit); err != nil || n != want {
			t.Fatalf("purge after %v: %d rows, want %d (%v)", after, n, want, err)
		}
	}
	purge(5*time.Second, 100, 0)
	purge(25*time.Second, 3, 3)
	purge(25*time.Second, 100, 1)
	purge(25*time.Second, 100, 0)
	if got := all(t, s, epoch, "q"); len(got) != 2 {
		t.Errorf("%d rows left, want 2", len(got))
	}
}

func queuesPurgeCold(t T, k *storageKit) {
	s, dir := k.fresh(t)
	total := 0
	for i := range 30 {
		put(t, s, messages(fmt.Sprintf("queue %d", i), 0, 5)...)
		total += 5
	}
	keep := message("queue 0", 99)
	keep.Expires = epoch.Add(240 * time.Hour)
	put(t, s, keep)
	s = k.again(t, s, dir)
	later := epoch.Add(24 * time.Hour)
	for _, want := range []int{20, total - 20, 0} {
		limit := 1000
		if want == 20 {
			limit = 20
		}
		if n, err := s.Queues.Purge(t.Context(), later, limit); err != nil || n != want {
			t.Fatalf("purge: %d rows, want %d (%v)", n, want, err)
		}
	}
	check(t, s, "queue 0", keep)
	if n, err := s.Queues.Purge(t.Context(), epoch.Add(480*time.Hour), 10); err != nil || n != 1 {
		t.Fatalf("purge of the last: %d (%v)", n, err)
	}
}

func queuesQuota(t T, k *storageKit) {
	s, dir := k.fresh(t)
	try := func(now time.Time, q storage.Quota, rows ...storage.Append) []storage.Appended {
		t.Helper()
		out, err := s.Queues.Append(t.Context(), now, storage.Batch{Rows: rows, Quota: q})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	five := storage.Quota{Messages: 5}
	out := try(epoch, five, append(messages("q", 0, 7), message("other", 0))...)
	for i, r := range out {
		if full := i == 5 || i == 6; full != errors.Is(r.Err, storage.ErrFull) || full != (sdk.KindOf(r.Err) == sdk.Full) {
			t.Fatalf("row %d: %v", i, r.Err)
		}
	}
	s = k.again(t, s, dir)
	if r := try(epoch, five, message("q", 3), message("q", 8)); !r[0].Duplicate || !errors.Is(r[1].Err, storage.ErrFull) {
		t.Fatalf("a duplicate needs no room: %+v", r)
	}
	if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: "q", Cursor: out[0].Position}}); err != nil {
		t.Fatal(err)
	}
	if r := try(epoch, five, message("q", 8), message("q", 9)); r[0].Err != nil || !errors.Is(r[1].Err, storage.ErrFull) {
		t.Fatalf("after one was done: %+v", r)
	}
	late := message("q", 10)
	late.Expires = epoch.Add(5 * time.Hour)
	if r := try(epoch.Add(2*time.Hour), five, late); r[0].Err != nil {
		t.Fatalf("expired rows count: %v", r[0].Err)
	}
	big := message("bytes", 0)
	big.Payload = make([]byte, 600)
	next := message("bytes", 1)
	next.Payload = big.Payload
	if r := try(epoch, storage.Quota{Bytes: 1000}, big, next); r[0].Err != nil || !errors.Is(r[1].Err, storage.ErrFull) {
		t.Fatalf("bytes: %+v", r)
	}
	if r := try(epoch, storage.Quota{}, next); r[0].Err != nil {
		t.Fatalf("no quota: %+v", r)
	}
}

func queuesNames(t T, k *storageKit) {
	s, dir := k.fresh(t)
	names := []string{
		"a", "aa", "a\x00", "\x00", "\xff", "\xff\xff", "a\xff", "Straße", "猫の中継", "🐈‍⬛", "invalid \xc3\x28 text",
		strings.Repeat("x", storage.MaxQueue), strings.Repeat("x", storage.MaxQueue-1), "'; DROP TABLE message; --", "a%", "A",
	}
	for i, n := range names {
		put(t, s, messages(n, 10*i, 2)...)
	}
	s = k.again(t, s, dir)
	for i, n := range names {
		check(t, s, n, messages(n, 10*i, 2)...)
	}
	for i, n := range names {
		if rows, err := s.Queues.Drop(t.Context(), n); err != nil || rows != 2 {
			t.Fatalf("drop %q: %d %v", n, rows, err)
		}
		for j, n := range names[i+1:] {
			check(t, s, n, messages(n, 10*(i+1+j), 2)...)
		}
	}
}

func queuesSizes(t T, k *storageKit) {
	s, dir := k.fresh(t)
	var rows []storage.Append
	for i, size := range []int{0, 1, 4095, 65519, 1 << 20, 16 << 20, storage.MaxPayload} {
		r := message("q", i)
		r.Payload = bytes.Repeat([]byte{byte(i + 1)}, size)
		rows = append(rows, r)
	}
	put(t, s, rows...)
	check(t, s, "q", rows...)
	s = k.again(t, s, dir)
	check(t, s, "q", rows...)
}

func queuesDepths(t T, k *storageKit) {
	s, dir := k.fresh(t)
	var p []uint64
	bytes := uint64(0)
	for _, r := range messages("q", 0, 4) {
		p = append(p, put(t, s, r)...)
		bytes += uint64(len(r.Payload))
	}
	s = k.again(t, s, dir)
	depths := func(want storage.Depth) {
		t.Helper()
		got, err := s.Queues.Depths(t.Context(), []string{"nobody", "q", "q"})
		if err != nil || len(got) != 3 || got[0] != (storage.Depth{}) || got[1] != want || got[2] != want {
			t.Fatalf("%+v %v, want %+v", got, err, want)
		}
	}
	depths(storage.Depth{Messages: 4, Bytes: bytes})
	if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: "q", Cursor: p[3]}}); err != nil {
		t.Fatal(err)
	}
	depths(storage.Depth{})
}

func queuesDrop(t T, k *storageKit) {
	s, dir := k.fresh(t)
	put(t, s, messages("q", 0, 20)...)
	put(t, s, messages("other", 0, 1)...)
	s = k.again(t, s, dir)
	for _, want := range []uint64{20, 0} {
		if n, err := s.Queues.Drop(t.Context(), "q"); err != nil || n != want {
			t.Fatalf("drop: %d %v, want %d", n, err, want)
		}
	}
	s = k.again(t, s, dir)
	check(t, s, "q")
	check(t, s, "other", message("other", 0))
	put(t, s, messages("q", 0, 3)...)
	check(t, s, "q", messages("q", 0, 3)...)
}

func queuesMarks(t T, k *storageKit) {
	s, dir := k.fresh(t)
	set := func(m ...storage.Mark) error {
		_, err := s.Queues.Append(t.Context(), epoch, storage.Batch{Rows: messages("q", 0, 1), Marks: m})
		return err
	}
	big := bytes.Repeat([]byte("m"), storage.MaxMark)
	key := strings.Repeat("k", storage.MaxMarkKey)
	if err := set(storage.Mark{Key: "one", Value: []byte("1")}, storage.Mark{Key: key, Value: big}, storage.Mark{Key: "\x00\xff", Value: []byte{0}}); err != nil {
		t.Fatal(err)
	}
	// Marks alone, without rows.
	if _, err := s.Queues.Append(t.Context(), epoch, storage.Batch{Marks: []storage.Mark{{Key: "one", Value: []byte("2")}, {Key: "two", Value: []byte("x")}}}); err != nil {
		t.Fatal(err)
	}
	if err := set(storage.Mark{Key: "two"}); err != nil {
		t.Fatal(err)
	}
	s = k.again(t, s, dir)
	got, err := s.Queues.Marks(t.Context(), []string{"two", "one", key, "\x00\xff", "none"})
	if err != nil || len(got) != 5 || got[0] != nil || string(got[1]) != "2" || !bytes.Equal(got[2], big) || len(got[3]) != 1 || got[4] != nil {
		t.Fatalf("marks: %d %v", len(got), err)
	}
	for _, m := range []storage.Mark{{Key: "", Value: []byte{1}}, {Key: key + "k"}, {Key: "k", Value: append(big, 1)}} {
		if err := set(m); sdk.KindOf(err) != sdk.Invalid {
			t.Errorf("mark with key of %d and value of %d bytes: %v", len(m.Key), len(m.Value), err)
		}
	}
}

func queuesRestart(t T, k *storageKit) {
	if k.o.Forgets {
		t.Skip("the store forgets")
	}
	s, dir := k.fresh(t)
	var rows []storage.Append
	for i := range 5 {
		batch := messages("q", 100*i, 40)
		put(t, s, batch...)
		rows = append(rows, batch...)
		s = k.again(t, s, dir)
		check(t, s, "q", rows...)
	}
}

func queuesLanes(t T, k *storageKit) {
	s, _ := k.fresh(t)
	const lanes, batches, size = 8, 12, 50
	var wg sync.WaitGroup
	for lane := range lanes {
		var names []string
		for i := 0; len(names) < 5; i++ {
			if q := fmt.Sprintf("queue %d", i); storage.Lane(q, lanes) == lane {
				names = append(names, q)
			}
		}
		wg.Go(func() {
			for i := range batches {
				var rows []storage.Append
				for j := range size {
					rows = append(rows, message(names[j%len(names)], i*size+j))
				}
				out, err := s.Queues.Append(t.Context(), epoch, storage.Batch{Rows: rows})
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				// Every second batch is done at once.
				for j, r := range out {
					if r.Err != nil || r.Duplicate {
						t.Errorf("row: %+v", r)
					}
					if i%2 == 0 {
						d := storage.Done{Queue: rows[j].Queue, Ranges: [][2]uint64{{r.Position, r.Position}}}
						if err := s.Queues.Done(t.Context(), []storage.Done{d}); err != nil {
							t.Errorf("done: %v", err)
						}
					}
				}
				if _, err := s.Queues.Depths(t.Context(), names); err != nil {
					t.Error(err)
				}
			}
			for _, q := range names {
				if got := len(all(t, s, epoch, q)); got != batches*size/2/len(names) {
					t.Errorf("%s has %d rows", q, got)
				}
			}
		})
	}
	wg.Wait()
}

func queuesContended(t T, k *storageKit) {
	s, _ := k.fresh(t)
	// All callers append the same rows to the same queues: each is stored once.
	const callers, rows = 8, 40
	positions := make([][]uint64, callers)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range rows {
				batch := []storage.Append{message("x", i), message("y", i)}
				if c%2 == 1 {
					batch[0], batch[1] = batch[1], batch[0]
				}
				out, err := s.Queues.Append(t.Context(), epoch, storage.Batch{Rows: batch})
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				positions[c] = append(positions[c], out[c%2].Position)
			}
		})
	}
	wg.Wait()
	for c := range callers {
		for i := range rows {
			if positions[c][i] != positions[0][i] {
				t.Fatalf("row %d has position %d for one caller and %d for another", i, positions[0][i], positions[c][i])
			}
		}
	}
	if x, y := len(all(t, s, epoch, "x")), len(all(t, s, epoch, "y")); x != rows || y != rows {
		t.Fatalf("%d and %d rows, want %d", x, y, rows)
	}
}
