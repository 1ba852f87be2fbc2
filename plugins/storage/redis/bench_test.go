package redis_test

import (
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/redis/redisserver"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/storage"
)

const busRate = 2000 // messages a second

// BenchmarkBus sends 2,000 messages a second from one node to another and tells how long
// each was on its way: linked in, and through the plugin's processes. As in the relay,
// what came while a call was under way goes with the next one, and routes are looked up
// before.
func BenchmarkBus(b *testing.B) {
	s := redisserver.Start(b)
	raw := map[string]any{"address": []any{s.Address()}}
	b.Run("linked", func(b *testing.B) { busTimes(b, open(b, raw), open(b, raw)) })
	b.Run("plugin", func(b *testing.B) {
		process := func() storage.Store {
			p := plugintest.Binary(b, "github.com/commucat/commucat/cmd/commucat-storage-redis")
			st, err := storage.Open(context.Background(), p, nil, raw)
			if err != nil {
				b.Fatal(err)
			}
			return st
		}
		busTimes(b, process(), process())
	})
}

func busTimes(b *testing.B, from, to storage.Store) {
	now := time.Now()
	if _, err := from.Routes.Claim(context.Background(), now, []storage.Claim{{Device: "d", Node: "to", Session: "s", TTL: time.Hour}}); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	arrived, ended := make(chan time.Duration, 1<<16), make(chan error, 1)
	go func() {
		ended <- to.Bus.Subscribe(ctx, "to", func(m []byte) {
			arrived <- time.Since(now) - time.Duration(binary.BigEndian.Uint64(m))
		})
	}()
	defer func() {
		cancel()
		<-ended
	}()
	var mu sync.Mutex
	var waiting [][]byte
	wake := make(chan struct{}, 1)
	put := func() {
		mu.Lock()
		waiting = append(waiting, binary.BigEndian.AppendUint64(nil, uint64(time.Since(now))))
		mu.Unlock()
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	send := func() error {
		mu.Lock()
		batch := waiting
		waiting = nil
		mu.Unlock()
		if _, err := from.Routes.Lookup(ctx, now, slices.Repeat([]string{"d"}, len(batch))); err != nil {
			return err
		}
		return from.Bus.Publish(ctx, "to", batch)
	}
	for ready := false; !ready; { // until the subscription stands
		put()
		if err := send(); err != nil {
			b.Fatal(err)
		}
		select {
		case <-arrived:
			ready = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	for len(arrived) > 0 {
		<-arrived
	}
	sent := make(chan error, 1)
	go func() {
		for range wake {
			if err := send(); err != nil {
				sent <- err
				return
			}
		}
		sent <- send()
	}()
	b.ResetTimer()
	began := time.Now()
	for i := range b.N {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / busRate)))
		put()
	}
	rate := float64(b.N) / time.Since(began).Seconds()
	close(wake)
	if err := <-sent; err != nil {
		b.Fatal(err)
	}
	var times []time.Duration
	for len(times) < b.N {
		times = append(times, <-arrived)
	}
	b.StopTimer()
	b.ReportMetric(rate, "messages/s")
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}
