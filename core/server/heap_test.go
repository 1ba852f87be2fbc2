package server

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestHeapPace(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 3200}, {1 << 20, 3200}, {4 << 20, 800}, {32 << 20, 100}, {1 << 30, 100}} {
		h := heap{live: c.live}
		if got := h.percent(100); got != c.want {
			t.Errorf("%d bytes alive: %d, want %d", c.live, got, c.want)
		}
	}
}

func TestHeapQuiet(t *testing.T) {
	for name, c := range map[string]struct {
		live, allocated uint64
		d               time.Duration
		want            bool
	}{
		"empty relay":           {2 << 20, 1<<20 - 1, trimFirst, true},
		"small relay at work":   {2 << 20, 1 << 20, trimFirst, false},
		"longer pause":          {2 << 20, 3 << 20, 4 * trimFirst, true},
		"keep-alives of many":   {256 << 20, 3 << 20, trimFirst, true},
		"many sessions at work": {256 << 20, 4 << 20, trimFirst, false},
	} {
		h := heap{live: c.live}
		if got := h.quiet(c.allocated, c.d); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	for _, c := range []struct {
		live, unused uint64
		want         bool
	}{{2 << 20, 4 << 20, false}, {2 << 20, 5 << 20, true}, {256 << 20, 8 << 20, false}, {256 << 20, 9 << 20, true}} {
		if got := (&heap{live: c.live, unused: c.unused}).worth(); got != c.want {
			t.Errorf("%d alive, %d unused: %t", c.live, c.unused, got)
		}
	}
}

// TestHeapRead holds the reading against what is known to be there.
func TestHeapRead(t *testing.T) {
	var h heap
	h.read()
	before := h.allocated
	kept := make([]byte, 8<<20)
	runtime.GC()
	h.read()
	if h.allocated-before < 8<<20 || h.live < 8<<20 {
		t.Errorf("%d bytes allocated, %d alive, after 8 MiB", h.allocated-before, h.live)
	}
	runtime.KeepAlive(kept)
	garbage := make([]byte, 8<<20)
	runtime.KeepAlive(garbage)
	h.read()
	if h.unused < 7<<20 { // what the last collection left to be swept counts against it
		t.Errorf("%d bytes unused, with 8 MiB of garbage", h.unused)
	}
}

func TestAfterCollections(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // only those of the test
	calls := make(chan struct{}, 16)
	stop := afterCollections(func() { calls <- struct{}{} })
	for range 3 {
		runtime.GC()
		<-calls
	}
	stop()
	runtime.GC()
	runtime.GC()
	if len(calls) != 0 {
		t.Error("called after stop")
	}
}
