package redis_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
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
// before. So that it shows what of that is the machine's, it tells beside how late the
// sender itself was woken, and how long a bare PING took between every tenth message and
// the next.
func BenchmarkBus(b *testing.B) {
	s := redisserver.Start(b)
	raw := map[string]any{"address": []any{s.Address()}}
	b.Run("linked", func(b *testing.B) { busTimes(b, s.Address(), open(b, raw), open(b, raw)) })
	b.Run("plugin", func(b *testing.B) {
		process := func() storage.Store {
			p := plugintest.Binary(b, "github.com/commucat/commucat/cmd/commucat-storage-redis")
			st, err := storage.Open(context.Background(), p, nil, raw)
			if err != nil {
				b.Fatal(err)
			}
			return st
		}
		busTimes(b, s.Address(), process(), process())
	})
}

// pings measures bare round trips, one for each value of ask, until that is closed.
func pings(ask <-chan struct{}, address string) (times []time.Duration, err error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	answer := make([]byte, len("+PONG\r\n"))
	for range ask {
		began := time.Now()
		if _, err := c.Write([]byte("PING\r\n")); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, answer); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
	return times, nil
}

// report tells the median and the 99th percentile.
func report(b *testing.B, name string, times []time.Duration) {
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), name+"p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), name+"p99-µs")
}

func busTimes(b *testing.B, address string, from, to storage.Store) {
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
	var lookups, publications []time.Duration
	send := func() error {
		mu.Lock()
		batch := waiting
		waiting = nil
		mu.Unlock()
		began := time.Now()
		if _, err := from.Routes.Lookup(ctx, now, slices.Repeat([]string{"d"}, len(batch))); err != nil {
			return err
		}
		found := time.Now()
		err := from.Bus.Publish(ctx, "to", batch)
		lookups, publications = append(lookups, found.Sub(began)), append(publications, time.Since(found))
		return err
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
	lookups, publications = nil, nil
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
	ask := make(chan struct{}, 1)
	var bare, late []time.Duration
	answered := make(chan error, 1)
	go func() {
		var err error
		bare, err = pings(ask, address)
		answered <- err
	}()
	b.ResetTimer()
	began := time.Now()
	for i := range b.N {
		due := began.Add(time.Duration(i) * time.Second / busRate)
		if i%10 == 9 {
			time.Sleep(time.Until(due.Add(-time.Second / busRate / 2)))
			select {
			case ask <- struct{}{}:
			default: // the last one is still under way
			}
		}
		time.Sleep(time.Until(due))
		late = append(late, time.Since(due))
		put()
	}
	rate := float64(b.N) / time.Since(began).Seconds()
	close(wake)
	close(ask)
	if err := errors.Join(<-sent, <-answered); err != nil {
		b.Fatal(err)
	}
	var times []time.Duration
	for len(times) < b.N {
		times = append(times, <-arrived)
	}
	b.StopTimer()
	b.ReportMetric(rate, "messages/s")
	report(b, "", times)
	report(b, "late-", late)
	report(b, "ping-", bare)
	report(b, "lookup-", lookups)
	report(b, "publish-", publications)
}
