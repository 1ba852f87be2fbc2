package main

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/plugintest/chronicle"
)

func sortedKeys(m map[int64]func()) []int64 { return slices.Sorted(maps.Keys(m)) }

// seeded is the seed of this run, printed; COMMUCAT_TEST_SEED repeats one.
func seeded(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("COMMUCAT_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("COMMUCAT_TEST_SEED=%d", seed)
	return seed
}

// TestLoadNodes: two relays that share PostgreSQL and Redis are one relay to their devices,
// whatever of the four is killed, emptied or away. The history of every message is
// checked at the end. COMMUCAT_SOAK=1 takes the full counts.
func TestLoadNodes(t *testing.T) {
	if raceDetector || testing.Short() {
		t.Skip("builds and runs the real plugins")
	}
	devices, messages, kills, flushes, outage, limit := 20, 2_000, 1, 1, time.Duration(0), 3*time.Minute
	if os.Getenv("COMMUCAT_SOAK") != "" {
		devices, messages, kills, flushes, outage, limit = 100, 100_000, 3, 2, time.Minute, 20*time.Minute
	}
	seed := seeded(t)
	random := rand.New(rand.NewPCG(seed, 1<<40))
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c := newCluster(t)
	f := newFleet(c)
	f.join(t, ctx, devices)

	t.Run("the recipe is a configuration", checkRecipe)
	t.Run("from node to node", func(t *testing.T) { f.nodeToNode(t, ctx) })
	t.Run("a session resumes at the other node", func(t *testing.T) {
		m := f.members[1]
		for i := range 4 {
			m.home.Store(int32(i % 2))
			m.client.Disconnect()
			if err := m.event(ctx, func(e client.Event) bool { return e.Name == "connected" && e.Resumed }); err != nil {
				t.Fatalf("move %d: %v\n%s\n%s", i, err, c.nodes[0].said(), c.nodes[1].said())
			}
			f.one(t, ctx, f.members[0], m)
			f.one(t, ctx, m, f.members[0])
		}
	})
	t.Run("the newest connection wins", func(t *testing.T) {
		// The same device a second time, at the other node.
		old := f.members[2]
		twin := f.connect(t, old.index, 1-int(old.home.Load()), old.client.Profile())
		replaced := func(e client.Event) bool {
			var said *client.Error
			return errors.As(e.Err, &said) && said.Code == ccp.CodeReplaced
		}
		if err := old.event(ctx, replaced); err != nil {
			t.Fatal(err)
		}
		if _, err := twin.client.Connected(ctx); err != nil {
			t.Fatal(err)
		}
	})
	outer := t // a node that is started again outlives the part that killed it
	t.Run("killed and emptied", func(t *testing.T) {
		faults := map[int64]func(){}
		at := func() int64 { return random.Int64N(int64(messages)*8/10) + int64(messages)/20 }
		for range kills {
			victim := c.nodes[random.IntN(2)]
			pause := time.Duration(random.Int64N(int64(time.Second)))
			faults[at()] = func() {
				victim.kill()
				wait := time.NewTimer(pause) // its devices go to the other node
				<-wait.C
				victim.start(outer)
			}
		}
		for range flushes {
			faults[at()] = c.redis.Flush
		}
		began := time.Now()
		f.exchange(t, ctx, seed, messages, faults)
		t.Logf("%d devices, %d kills, %d flushes, %.1f s: %s", devices, kills, flushes, time.Since(began).Seconds(), chronicle.Check(f.log.Events()))
	})
	t.Run("Redis is away", func(t *testing.T) {
		c.redis.Kill()
		began := time.Now()
		until(t, "both say so", func() bool { return c.nodes[0].degraded(t, "nodes") && c.nodes[1].degraded(t, "nodes") })
		for _, n := range c.nodes { // the relays serve their devices without it
			if code := n.readiness(t); code != 200 {
				t.Errorf("readyz %d", code)
			}
		}
		for i := uint64(0); i == 0 || time.Since(began) < outage; i++ {
			f.exchange(t, ctx, seed+1+i<<32, 10*devices, nil)
		}
		c.redis.Run()
		until(t, "both see it again", func() bool { return !c.nodes[0].degraded(t, "nodes") && !c.nodes[1].degraded(t, "nodes") })
		f.exchange(t, ctx, seed+2, 10*devices, nil)
	})
	t.Run("Redis hangs", func(t *testing.T) {
		// It keeps its connections and answers nothing. Messages pass, and a device
		// that comes meanwhile is served.
		thaw := c.redis.Freeze()
		f.exchange(t, ctx, seed+4, 5*devices, nil)
		m := f.members[3]
		m.client.Disconnect()
		if err := m.event(ctx, func(e client.Event) bool { return e.Name == "connected" }); err != nil {
			t.Error(err)
		}
		until(t, "both say so", func() bool { return c.nodes[0].degraded(t, "nodes") && c.nodes[1].degraded(t, "nodes") })
		for _, n := range c.nodes {
			if code := n.readiness(t); code != 200 {
				t.Errorf("readyz %d", code)
			}
		}
		f.exchange(t, ctx, seed+5, 5*devices, nil)
		thaw()
		until(t, "both see it again", func() bool { return !c.nodes[0].degraded(t, "nodes") && !c.nodes[1].degraded(t, "nodes") })
		f.exchange(t, ctx, seed+6, 5*devices, nil)
	})
	t.Run("PostgreSQL is killed", func(t *testing.T) {
		f.exchange(t, ctx, seed+3, 20*devices, map[int64]func(){int64(5 * devices): func() {
			c.pg.Kill()
			until(t, "no node is ready", func() bool { return c.nodes[0].readiness(t) == 503 && c.nodes[1].readiness(t) == 503 })
			c.pg.Run()
			until(t, "all are ready", func() bool { return c.nodes[0].readiness(t) == 200 && c.nodes[1].readiness(t) == 200 })
		}})
	})
	t.Run("PostgreSQL fails over", func(t *testing.T) {
		synchronous := func() bool {
			return c.pg.SQL("postgres", "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1"
		}
		c.pg.Set("synchronous_standby_names", "*")
		until(t, "the standby is synchronous", synchronous)
		f.exchange(t, ctx, seed+7, 20*devices, map[int64]func(){int64(5 * devices): func() {
			c.pg.Kill()
			c.standby.Promote()
			c.standby.Set("synchronous_standby_names", "")
		}})
		for _, n := range c.nodes {
			until(t, "both are ready", func() bool { return n.readiness(t) == 200 })
		}
	})
	f.judge(t)
}

// one sends a message and waits until it is shown.
func (f *fleet) one(t *testing.T, ctx context.Context, from, to *member) {
	t.Helper()
	shown := f.shown.Load()
	ticket, n, err := from.send(to)
	if err == nil {
		err = from.acked(ctx, to, ticket, n)
	}
	if err == nil {
		err = f.reach(ctx, &f.shown, shown+1)
	}
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, f.c.nodes[0].said(), f.c.nodes[1].said())
	}
}

// judge is the end of a test: nothing lost, nothing twice, nothing out of order.
func (f *fleet) judge(t *testing.T) {
	t.Helper()
	select {
	case err := <-f.wrong:
		t.Error(err)
	default:
	}
	if r := chronicle.Check(f.log.Events()); !r.Good() {
		t.Errorf("%s\n%s\n%s", r, f.c.nodes[0].said(), f.c.nodes[1].said())
	}
}
