package server

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	trimEvery = 5 * time.Second
	// trimQuiet is the allocation in one interval below which the relay counts as
	// idle; trimGain is how much memory must be in sight before a collection is
	// worth its time.
	trimQuiet = 1 << 20
	trimGain  = 8 << 20
)

// trim gives memory back once a burst is over. The collector runs when the heap
// has doubled; a relay whose thousands of sessions fall silent after connecting
// would keep that garbage for minutes.
func (s *Server) trim(ctx context.Context) error {
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	t := time.NewTicker(trimEvery)
	defer t.Stop()
	var allocated uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		metrics.Read(samples)
		total := samples[0].Value.Uint64()
		quiet := total-allocated < trimQuiet
		allocated = total
		garbage := int64(samples[1].Value.Uint64()) - int64(samples[2].Value.Uint64()) + int64(samples[3].Value.Uint64())
		if quiet && garbage > trimGain {
			debug.FreeOSMemory()
		}
	}
}
