package server

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// heapFloor is what may be allocated between two collections however small
	// the heap is. A relay with few sessions has 3 MiB alive: at the usual pace
	// it would collect every 25 ms under load.
	heapFloor = 32 << 20
	// trimFirst is when memory is looked after once a collection has ended; the
	// pause doubles up to trimMost while the relay stays quiet.
	trimFirst = 5 * time.Second
	trimMost  = time.Minute
	// trimGain is how much memory must be in sight before a collection for its
	// sake is worth its time.
	trimGain = 4 << 20
)

// heap is what the runtime says of its memory.
type heap struct {
	allocated uint64 // since the start
	live      uint64 // after the last collection, with stacks and globals
	unused    uint64 // garbage, and free memory that was not given back
	samples   []metrics.Sample
}

func (h *heap) read() {
	if h.samples == nil {
		for _, name := range []string{
			"/gc/heap/allocs:bytes", "/gc/heap/live:bytes", "/gc/scan/stack:bytes", "/gc/scan/globals:bytes",
			"/memory/classes/heap/objects:bytes", "/memory/classes/heap/free:bytes",
		} {
			h.samples = append(h.samples, metrics.Sample{Name: name})
		}
	}
	metrics.Read(h.samples)
	v := func(i int) uint64 { return h.samples[i].Value.Uint64() }
	h.allocated, h.live = v(0), v(1)+v(2)+v(3)
	h.unused = v(5)
	if v(4) > v(1) {
		h.unused += v(4) - v(1)
	}
}

// percent is the collector's pace (GOGC) for this heap: base, or more where that
// would be less than heapFloor.
func (h *heap) percent(base int) int {
	return max(base, int(heapFloor*100/max(h.live, heapFloor/32)))
}

// quiet says that so little was allocated in a time d that a burst is over: a
// share of the heap that keep-alives of all its sessions do not reach.
func (h *heap) quiet(allocated uint64, d time.Duration) bool {
	return allocated < max(1<<20, h.live/64)*uint64(d/trimFirst)
}

// worth says that enough memory would be given back.
func (h *heap) worth() bool { return h.unused > max(trimGain, h.live/32) }

// memory sets the collector's pace after each collection and gives memory back
// once a burst is over: a relay whose thousands of sessions fall silent after
// connecting would keep that garbage for minutes. An idle relay is left alone.
func (s *Server) memory(ctx context.Context) error {
	collected := make(chan struct{}, 1)
	stop := afterCollections(func() {
		select {
		case collected <- struct{}{}:
		default:
		}
	})
	defer stop()
	base, pace := s.opt.Collect, s.opt.Collect
	if base > 0 {
		defer debug.SetGCPercent(debug.SetGCPercent(base))
	}
	var (
		h   heap
		own bool // the next collection is one of ours
	)
	h.read()
	wait, before := trimFirst, h.allocated
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-collected:
			h.read()
			if p := h.percent(base); base > 0 && (p < pace-pace/8 || p > pace+pace/8) {
				pace = p
				debug.SetGCPercent(p)
			}
			if own {
				own = false // not a sign of a burst
			} else if wait > trimFirst {
				wait, before = trimFirst, h.allocated
				t.Reset(wait)
			}
		case <-t.C:
			h.read()
			switch {
			case !h.quiet(h.allocated-before, wait):
				wait = trimFirst
			default:
				if own = h.worth(); own {
					debug.FreeOSMemory()
				}
				wait = min(2*wait, trimMost)
			}
			before = h.allocated
			t.Reset(wait)
		}
	}
}

// afterCollections calls f after each collection of the process, on the runtime's
// goroutine for finalizers, until stop is called.
func afterCollections(f func()) (stop func()) {
	type sentinel [64]byte // larger than what the allocator puts together
	over := make(chan struct{})
	var again func(*sentinel)
	again = func(o *sentinel) {
		select {
		case <-over:
			return
		default:
		}
		f()
		runtime.SetFinalizer(o, again)
	}
	runtime.SetFinalizer(new(sentinel), again)
	return func() { close(over) }
}
