package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/core/bench"
	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/plugintest/chronicle"
)

// pace measures how long messages are on their way: from the sender's call until the
// recipient's program has them.
type pace struct {
	mu    sync.Mutex
	began map[paced]time.Time
	took  []time.Duration
}

type paced struct {
	chronicle.Pair
	n uint64
}

func (p *pace) sent(from, to int, n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began[paced{chronicle.Pair{From: from, To: to}, n}] = time.Now()
}

func (p *pace) shown(from, to int, n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if began, ok := p.began[paced{chronicle.Pair{From: from, To: to}, n}]; ok {
		p.took = append(p.took, time.Since(began))
	}
}

const pacedRate = 2000 // messages a second, a pair of them every millisecond

// nodeToNode sends from devices at one node to devices at the other, at a steady rate,
// and tells how long each message was on its way, stored with fsync in between.
func (f *fleet) nodeToNode(t *testing.T, ctx context.Context) {
	n, floor := 400, 100*time.Millisecond
	if os.Getenv("COMMUCAT_SOAK") != "" {
		n, floor = 20_000, 2*time.Second
	}
	wait, syncs, err := bench.DiskFloor(t.TempDir(), pacedRate, floor)
	if err != nil {
		t.Fatal(err)
	}
	p := &pace{began: map[paced]time.Time{}}
	f.pace.Store(p)
	defer f.pace.Store(nil)
	type ticket struct {
		from, to *member
		*client.Ticket
		n uint64
	}
	shown := f.shown.Load()
	var tickets []ticket
	began := time.Now()
	tick := time.NewTicker(2 * time.Second / pacedRate)
	defer tick.Stop()
	pairs := len(f.members) / 2
	for i := range n {
		if i%2 == 0 {
			<-tick.C
		}
		from, to := f.members[i%pairs*2], f.members[(i+i/pairs)%pairs*2+1] // even ones are at the first node
		next := from.next[to.index]
		p.sent(from.index, to.index, next)
		k, number, err := from.send(to)
		if err != nil {
			t.Fatal(err)
		}
		tickets = append(tickets, ticket{from, to, k, number})
	}
	took := time.Since(began)
	for _, k := range tickets {
		if err := k.from.acked(ctx, k.to, k.Ticket, k.n); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.reach(ctx, &f.shown, shown+int64(n)); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.took) != n {
		t.Fatalf("%d of %d messages arrived", len(p.took), n)
	}
	t.Logf("%d messages, %.0f a second, from node to node: %s; a bare log on the same disk: %s, one sync of it: %s",
		n, float64(n)/took.Seconds(), percentiles(p.took), percentiles(wait), percentiles(syncs))
}

func percentiles(d []time.Duration) string {
	slices.Sort(d)
	return fmt.Sprintf("p50 %v, p99 %v", d[len(d)/2].Round(time.Microsecond), d[len(d)*99/100].Round(time.Microsecond))
}
