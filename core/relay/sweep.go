package relay

import (
	"context"
	"math"
)

// sweepBatch is how many queues one question of a sweep is about.
const sweepBatch = 1024

// sweep finds rows that other nodes have stored for devices connected here and that
// nobody told of: one question about the depths of 1,024 queues, and a read only
// where more lies than the device was given.
func (h *Hub) sweep(ctx context.Context) {
	for i := range h.shards {
		links := h.shards[i].all()
		for len(links) > 0 {
			part := links[:min(len(links), sweepBatch)]
			links = links[len(part):]
			if !h.sweepPart(ctx, part) {
				return
			}
		}
	}
}

func (h *Hub) sweepPart(ctx context.Context, links []*Link) bool {
	queues := make([]string, len(links))
	for i, l := range links {
		queues[i] = l.device
	}
	call, cancel := context.WithTimeout(ctx, upkeepCall)
	defer cancel()
	depths, err := h.queues.Depths(call, queues)
	if err != nil || len(depths) != len(links) {
		if ctx.Err() == nil {
			h.log.Warn("look for messages of other nodes", "devices", len(links), "error", err)
		}
		return false
	}
	for i, l := range links {
		if depths[i].Messages > l.known() {
			l.reread()
		}
	}
	return true
}

// known is how many stored rows this link has seen and not seen deleted. A link that
// is about to read anyway knows all.
func (l *Link) known() uint64 {
	o := &l.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.live {
		return math.MaxUint64
	}
	return uint64(o.ring.waiting + len(o.backlog) + len(o.held))
}
