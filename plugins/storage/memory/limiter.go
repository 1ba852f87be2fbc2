package memory

import (
	"context"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// limiter keeps one time per bucket: when it will be full again (the virtual
// scheduling form of a token bucket, ITU-T I.371). A bucket that is full again
// needs no memory.
type limiter struct {
	mu    sync.Mutex
	table table[time.Time]
}

func newLimiter(limit int) *limiter { return &limiter{table: newTable[time.Time](limit, nil)} }

func (l *limiter) Take(_ context.Context, now time.Time, key string, r storage.Rate, n uint32) (time.Duration, error) {
	if r.Burst == 0 || r.Per <= 0 {
		return 0, &storage.Error{Kind: sdk.Invalid, Text: "rate without burst or period"}
	}
	if n > r.Burst {
		return 0, &storage.Error{Kind: sdk.Invalid, Text: "more tokens than the bucket holds"}
	}
	token := r.Per / time.Duration(r.Burst)
	if token <= 0 {
		token = 1
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	full, ok := l.table.get(now, key)
	// A clock that was set back must not lock anybody out.
	if !ok || full.Sub(now) > r.Per {
		full = now.Add(min(max(full.Sub(now), 0), r.Per))
	}
	if n == 0 {
		return 0, nil
	}
	next := full.Add(time.Duration(n) * token)
	if wait := next.Sub(now) - r.Per; wait > 0 {
		return wait, nil
	}
	l.table.put(now, key, next, next)
	return 0, nil
}
