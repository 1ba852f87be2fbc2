package postgres_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/storage"
)

// BenchmarkEnqueue stores rows of 256 B with 2,000 of them in flight, as the relay's
// group committer does: a batch takes whatever waits for its lane.
func BenchmarkEnqueue(b *testing.B) {
	s := pgserver.Start(b)
	for _, lanes := range []int{1, 2, 4} {
		for _, done := range []bool{false, true} {
			b.Run(fmt.Sprintf("lanes=%d/done=%v", lanes, done), func(b *testing.B) {
				st, err := opener(s.Address())(context.Background(), b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				defer st.Close(context.Background())
				b.ResetTimer()
				enqueue(b, st, lanes, int64(b.N), done)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

// BenchmarkEnqueuePlugin takes turns between the code linked in and the plugin's process,
// b.N rounds of each, and reports the medians and their ratio: what else the machine does
// then comes to both.
func BenchmarkEnqueuePlugin(b *testing.B) {
	s := pgserver.Start(b)
	const rows = 100_000 // a round
	open := func(how string, p sdk.Plugin) (storage.Store, int) {
		st, err := storage.Open(context.Background(), p, nil, map[string]any{"address": []any{s.Address()}, "schema": how})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = st.Close(context.Background()) })
		return st, storage.TraitsOf(p).Lanes
	}
	linked, lanes := open("linked", postgres.Plugin())
	process, _ := open("process", plugintest.Binary(b, "github.com/commucat/commucat/cmd/commucat-storage-postgres"))
	stores := []storage.Store{linked, process}
	for _, st := range stores {
		enqueue(b, st, lanes, rows/10, false) // connections, statements, the first pages
	}
	var rates [2][]float64
	b.ResetTimer()
	for i := range b.N {
		for j := range stores {
			j = (i + j) % 2
			began := time.Now()
			enqueue(b, stores[j], lanes, rows, false)
			rates[j] = append(rates[j], rows/time.Since(began).Seconds())
		}
	}
	b.StopTimer()
	for i := range rates {
		b.Logf("%s: %.0f rows/s", []string{"linked in", "process"}[i], rates[i])
		slices.Sort(rates[i])
	}
	in, out := rates[0][b.N/2], rates[1][b.N/2]
	b.ReportMetric(in, "linked-rows/s")
	b.ReportMetric(out, "plugin-rows/s")
	b.ReportMetric(out/in, "ratio")
}

// queuesOf are names of queues of one lane: a batch goes to the lane of its first row,
// and queues of one lane are no other's.
func queuesOf(lane, lanes, n int) []string {
	var names []string
	for i := 0; len(names) < n; i++ {
		if q := fmt.Sprintf("device-%d", i); storage.Lane(q, lanes) == lane {
			names = append(names, q)
		}
	}
	return names
}

const inFlight, queueCount = 2000, 200

// enqueue stores rows, lanes at once, and with done takes them out again.
func enqueue(b *testing.B, st storage.Store, lanes int, total int64, done bool) {
	now := time.Now()
	var left, counter atomic.Int64
	left.Store(total)
	payload := make([]byte, 256)
	var wg sync.WaitGroup
	for lane := range lanes {
		names := queuesOf(lane, lanes, queueCount/lanes)
		wg.Go(func() {
			for {
				n := min(int64(inFlight/lanes), 1024)
				if left.Add(-n) < 0 {
					return
				}
				rows := make([]storage.Append, n)
				finished := map[string]uint64{}
				for i := range rows {
					rows[i] = storage.Append{Queue: names[i%len(names)], Payload: payload, Expires: now.Add(time.Hour)}
					binary.BigEndian.PutUint64(rows[i].ID[:], uint64(now.UnixNano())) // as a client's: its log, and a count
					binary.BigEndian.PutUint64(rows[i].ID[8:], uint64(counter.Add(1)))
				}
				out, err := st.Queues.Append(context.Background(), now, storage.Batch{Rows: rows, Quota: storage.Quota{Messages: 1 << 30}})
				if err != nil {
					b.Error(err)
					return
				}
				if !done {
					continue
				}
				for i := range out {
					finished[rows[i].Queue] = out[i].Position
				}
				var d []storage.Done
				for q, p := range finished {
					d = append(d, storage.Done{Queue: q, Cursor: p})
				}
				if err := st.Queues.Done(context.Background(), d); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
