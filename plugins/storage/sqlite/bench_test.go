package sqlite

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

var engines = []string{"pebble", "sqlite"}

func openTest(tb testing.TB, dir string, c Config, o options) storage.Store {
	tb.Helper()
	def := Config{}
	sdk.Defaults(&def)
	if c.Queues == "" {
		c.Queues = def.Queues
	}
	if c.Index == 0 {
		c.Index = def.Index
	}
	if c.Memtable == 0 {
		c.Memtable = def.Memtable
	}
	c.Path = dir
	s, err := open(context.Background(), sdk.NewEnv(sdk.EnvOptions{}), c, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// cpu is the process's time so far.
func cpu() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// perRow reports rows per second and the CPU time of one.
func perRow(b *testing.B, rows int, f func()) {
	b.Helper()
	before := cpu()
	b.ResetTimer()
	f()
	b.StopTimer()
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64((cpu()-before).Nanoseconds())/1e3/float64(rows), "cpu-us/row")
}

const bodySize = 356 // 256 and the sealed envelope's about 100

// rowsOf makes n rows over some queues; ids count from first.
func rowsOf(n, queues int, first uint64, body []byte, now time.Time) []storage.Append {
	rows := make([]storage.Append, n)
	for i := range rows {
		id := first + uint64(i)
		rows[i] = storage.Append{
			Queue: fmt.Sprintf("%032x", id%uint64(queues)), Payload: body, Expires: now.Add(14 * 24 * time.Hour),
		}
		binary.LittleEndian.PutUint64(rows[i].ID[:], id*0x9e3779b97f4a7c15)
		binary.LittleEndian.PutUint64(rows[i].ID[8:], id)
	}
	return rows
}

// BenchmarkAppend appends without deleting, one caller.
func BenchmarkAppend(b *testing.B) {
	for _, e := range engines {
		for _, batch := range []int{1, 16, 256, 1024} {
			b.Run(fmt.Sprintf("%s/%d", e, batch), func(b *testing.B) {
				s, now, body := openTest(b, b.TempDir(), Config{Queues: e}, options{}), time.Now(), make([]byte, bodySize)
				n := 0
				perRow(b, b.N*batch, func() {
					for range b.N {
						if _, err := s.Queues.Append(b.Context(), now, storage.Batch{Rows: rowsOf(batch, 1000, uint64(n), body, now)}); err != nil {
							b.Fatal(err)
						}
						n += batch
					}
				})
			})
		}
	}
}

// BenchmarkSteady appends in four lanes and deletes what was appended before, as
// a relay does whose recipients are all online.
func BenchmarkSteady(b *testing.B) {
	for _, e := range engines {
		for _, batch := range []int{16, 64, 256} {
			b.Run(fmt.Sprintf("%s/%d", e, batch), func(b *testing.B) {
				s := openTest(b, b.TempDir(), Config{Queues: e}, options{})
				const lanes = 4
				perRow(b, b.N*batch, func() {
					var wg sync.WaitGroup
					for lane := range lanes {
						wg.Go(func() { steady(b, s, lane, lanes, b.N/lanes+1, batch) })
					}
					wg.Wait()
				})
			})
		}
	}
}

func steady(b *testing.B, s storage.Store, lane, lanes, batches, batch int) {
	now, body := time.Now(), make([]byte, bodySize)
	var names []string
	for i := 0; len(names) < 25; i++ {
		if q := fmt.Sprintf("%032x", i); storage.Lane(q, lanes) == lane {
			names = append(names, q)
		}
	}
	var done []storage.Done
	for i := range batches {
		rows := rowsOf(batch, len(names), uint64(i*batch), body, now)
		for j := range rows {
			rows[j].Queue = names[j%len(names)]
			rows[j].ID[15] = byte(lane)
		}
		out, err := s.Queues.Append(b.Context(), now, storage.Batch{Rows: rows})
		if err == nil {
			err = s.Queues.Done(b.Context(), done)
		}
		if err != nil {
			b.Error(err)
			return
		}
		done = done[:0]
		for j := max(0, len(rows)-len(names)); j < len(rows); j++ {
			done = append(done, storage.Done{Queue: rows[j].Queue, Cursor: out[j].Position})
		}
	}
}

// BenchmarkFanout appends one body to a hundred queues per message.
func BenchmarkFanout(b *testing.B) {
	for _, e := range engines {
		b.Run(e, func(b *testing.B) {
			s, now, body := openTest(b, b.TempDir(), Config{Queues: e}, options{}), time.Now(), make([]byte, bodySize)
			n := 0
			perRow(b, b.N*1000, func() {
				for range b.N {
					if _, err := s.Queues.Append(b.Context(), now, storage.Batch{Rows: rowsOf(1000, 100, uint64(n), body, now)}); err != nil {
						b.Fatal(err)
					}
					n += 1000
				}
			})
		})
	}
}

// BenchmarkDrain reads queues of 2,000 rows in pages and deletes them, after a
// restart.
func BenchmarkDrain(b *testing.B) {
	for _, e := range engines {
		b.Run(e, func(b *testing.B) {
			const queues, each = 50, 2000
			now, body := time.Now(), make([]byte, bodySize)
			dir := b.TempDir()
			s := openTest(b, dir, Config{Queues: e}, options{})
			for i := range queues * each / 1000 {
				if _, err := s.Queues.Append(b.Context(), now, storage.Batch{Rows: rowsOf(1000, queues, uint64(i*1000), body, now)}); err != nil {
					b.Fatal(err)
				}
			}
			_ = s.Close(b.Context())
			s = openTest(b, dir, Config{Queues: e}, options{})
			total := 0
			before := cpu()
			b.ResetTimer()
			for range b.N {
				for q := range queues {
					total += drain(b, s, fmt.Sprintf("%032x", q), now, b.N == 1)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64((cpu()-before).Nanoseconds())/1e3/float64(total), "cpu-us/row")
		})
	}
}

func drain(b *testing.B, s storage.Store, queue string, now time.Time, done bool) (n int) {
	for after := uint64(0); ; {
		page, err := s.Queues.Read(b.Context(), now, queue, after, storage.Page{Messages: 256, Bytes: 1 << 20})
		if err != nil {
			b.Fatal(err)
		}
		if len(page) == 0 {
			return n
		}
		n += len(page)
		after = page[len(page)-1].Position
		if done {
			if err := s.Queues.Done(b.Context(), []storage.Done{{Queue: queue, Cursor: after}}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkCommit is one directory record per commit, 64 callers.
func BenchmarkCommit(b *testing.B) {
	s := openTest(b, b.TempDir(), Config{}, options{})
	b.SetParallelism(32)
	before := cpu()
	now := time.Now()
	b.RunParallel(func(pb *testing.PB) {
		id := fmt.Sprintf("%p", pb)
		for pb.Next() {
			err := s.Directory.Commit(b.Context(), now, []storage.Write{{
				Key: storage.Key{Kind: "device", ID: id}, Expect: storage.AnyVersion, Value: make([]byte, 200)}})
			if err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64((cpu()-before).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
}

func spaceOf(s storage.Store) *space { return s.Directory.(*directory).space }
