package relay

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk/ccp"
)

// tally is what the hub told of messages.
type tally struct {
	noMetrics
	mu               sync.Mutex
	accepted, handed []float64
	fan              []int
	again, duplicate int
	seconds          float64
	waiting          int
}

func (c *tally) note(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *tally) Accepted(s float64) { c.note(func() { c.accepted = append(c.accepted, s) }) }
func (c *tally) Handed(s float64)   { c.note(func() { c.handed = append(c.handed, s) }) }
func (c *tally) FannedOut(n int)    { c.note(func() { c.fan = append(c.fan, n) }) }
func (c *tally) Duplicate()         { c.note(func() { c.duplicate++ }) }
func (c *tally) Waiting(n int)      { c.note(func() { c.waiting = n }) }
func (c *tally) Delivered(again bool) {
	c.note(func() {
		if again {
			c.again++
		}
	})
}

func (c *tally) Committed(_, _ int, s float64) { c.note(func() { c.seconds += s }) }

// The times of a message are those of its storing; with a storage that takes a quarter of
// a second they are known.
func TestTimesOfAMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var c tally
		b := newBed(t, func(o *Options) { o.Metrics = &c })
		defer b.stop()
		s := b.connect("s.1", allCaps, 0)
		b.connect("a.1", allCaps, 0)
		b.acc.add("b.1", allCaps)
		gate := make(chan struct{})
		b.store.set(func() { b.store.gate = gate })
		if err := s.sendAs(1, 0, []string{"a.1", "b.1"}, "x", ccp.SendNoCopies); err != nil {
			t.Fatal(err)
		}
		after(250 * time.Millisecond)
		close(gate)
		settle()
		if err := s.sendAs(1, 0, []string{"a.1", "b.1"}, "x", ccp.SendNoCopies); err != nil { // again
			t.Fatal(err)
		}
		settle()
		c.mu.Lock()
		defer c.mu.Unlock()
		quarter := []float64{.25}
		if diff := cmp.Diff([]any{quarter, quarter, []int{2}, 1, 0}, []any{c.accepted, c.handed, c.fan, c.duplicate, c.waiting}); diff != "" {
			t.Error(diff)
		}
		if c.seconds != .25 && c.seconds != .5 { // the two rows may lie in two lanes
			t.Errorf("batches took %v s", c.seconds)
		}
	})
}
