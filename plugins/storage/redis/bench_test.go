package redis_test

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/redis/redisserver"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/storage"
)

const busRate = 2000 // messages a second at most

// BenchmarkBus sends one message after another, at most 2,000 a second, from one node to
// another and tells how long each was on its way: linked in, and through the plugin's
// process. Each looks its route up before, as the relay's wakes do.
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
	send := func() {
		m := binary.BigEndian.AppendUint64(nil, uint64(time.Since(now)))
		if _, err := from.Routes.Lookup(ctx, now, []string{"d"}); err != nil {
			b.Fatal(err)
		}
		if err := from.Bus.Publish(ctx, "to", [][]byte{m}); err != nil {
			b.Fatal(err)
		}
	}
	for ready := false; !ready; { // until the subscription stands
		send()
		select {
		case <-arrived:
			ready = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	for len(arrived) > 0 {
		<-arrived
	}
	var times []time.Duration
	b.ResetTimer()
	tick := time.NewTicker(time.Second / busRate)
	defer tick.Stop()
	for range b.N {
		<-tick.C
		send()
	}
	for len(times) < b.N {
		times = append(times, <-arrived)
	}
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}
