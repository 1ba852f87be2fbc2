package pairing

import (
	"context"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// maxBuckets bounds the memory of the limiter.
const maxBuckets = 16384

// limiter is a storage.Limiter in memory, used where the store offers none. When
// it is full the bucket that is fullest of a few is forgotten, so that an attacker
// with many prefixes cannot make it forget an empty one first.
type limiter struct {
	mu      sync.Mutex
	limit   int
	buckets map[string]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time
	rate   float64 // tokens a second
	burst  float64
}

func newLimiter(limit int) *limiter {
	return &limiter{limit: limit, buckets: make(map[string]*bucket)}
}

func (b *bucket) refill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(b.burst, b.tokens+d.Seconds()*b.rate)
		b.at = now
	}
}

// Take implements storage.Limiter.
func (l *limiter) Take(_ context.Context, now time.Time, key string, r storage.Rate, n uint32) (time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[key]
	if b == nil {
		if len(l.buckets) >= l.limit {
			l.evict(now)
		}
		b = &bucket{tokens: float64(r.Burst), at: now, rate: float64(r.Burst) / r.Per.Seconds(), burst: float64(r.Burst)}
		l.buckets[key] = b
	}
	b.refill(now)
	if b.tokens >= float64(n) {
		b.tokens -= float64(n)
		return 0, nil
	}
	return time.Duration((float64(n) - b.tokens) / b.rate * float64(time.Second)), nil
}

// evict forgets the fullest of 16 buckets, which map order picks.
func (l *limiter) evict(now time.Time) {
	victim, most, seen := "", -1.0, 0
	for key, b := range l.buckets {
		b.refill(now)
		if share := b.tokens / b.burst; share > most {
			victim, most = key, share
		}
		if seen++; seen == 16 {
			break
		}
	}
	delete(l.buckets, victim)
}
