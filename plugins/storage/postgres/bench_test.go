package postgres_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
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
				enqueue(b, st, lanes, done)
			})
		}
	}
}

// BenchmarkEnqueuePlugin is the same through the plugin's process, beside the code
// linked in, for their ratio.
func BenchmarkEnqueuePlugin(b *testing.B) {
	s := pgserver.Start(b)
	for _, how := range []string{"linked", "plugin"} {
		b.Run(how, func(b *testing.B) {
			p := postgres.Plugin()
			if how == "plugin" {
				p = plugintest.Binary(b, "github.com/commucat/commucat/cmd/commucat-storage-postgres")
			}
			st, err := storage.Open(context.Background(), p, nil, map[string]any{"address": []any{s.Address()}, "schema": how})
			if err != nil {
				b.Fatal(err)
			}
			defer st.Close(context.Background())
			enqueue(b, st, storage.TraitsOf(p).Lanes, false)
		})
	}
}

const inFlight, queueCount = 2000, 200

func enqueue(b *testing.B, st storage.Store, lanes int, done bool) {
	now := time.Now()
	var left, counter atomic.Int64
	left.Store(int64(b.N))
	payload := make([]byte, 256)
	var wg sync.WaitGroup
	b.ResetTimer()
	for lane := range lanes {
		wg.Go(func() {
			for {
				n := min(int64(inFlight/lanes), 1024)
				if left.Add(-n) < 0 {
					return
				}
				rows := make([]storage.Append, n)
				finished := map[string]uint64{}
				for i := range rows {
					// Queues of one lane are no other's.
					q := fmt.Sprintf("device-%d-%d", lane, i%(queueCount/lanes))
					rows[i] = storage.Append{Queue: q, Payload: payload, Expires: now.Add(time.Hour)}
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
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
