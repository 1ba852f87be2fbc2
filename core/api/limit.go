package api

import (
	"net/netip"
	"sync"
	"time"
)

// sources bounds the prefixes that a limiter remembers.
const sources = 16384

// limiter holds a token bucket for each address prefix.
type limiter struct {
	mu      sync.Mutex
	buckets map[netip.Prefix]*tokens
	rate    float64 // a second
	burst   float64
}

type tokens struct {
	level float64
	at    time.Time
}

func newLimiter(perMinute, burst uint32) *limiter {
	return &limiter{buckets: map[netip.Prefix]*tokens{}, rate: float64(perMinute) / 60, burst: float64(burst)}
}

// take spends one token of the prefix; wait is how long until there is one.
func (l *limiter) take(p netip.Prefix, now time.Time) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[p]
	if b == nil {
		if len(l.buckets) >= sources {
			l.evict(now)
		}
		b = &tokens{level: l.burst, at: now}
		l.buckets[p] = b
	}
	l.fill(b, now)
	if b.level >= 1 {
		b.level--
		return 0
	}
	return time.Duration((1 - b.level) / l.rate * float64(time.Second))
}

// giveBack returns the token that a right guess had taken.
func (l *limiter) giveBack(p netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.buckets[p]; b != nil {
		b.level = min(l.burst, b.level+1)
	}
}

func (l *limiter) fill(b *tokens, now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.level = min(l.burst, b.level+d.Seconds()*l.rate)
		b.at = now
	}
}

// evict forgets the fullest of 16, so that many new sources do not make it
// forget one that is at its limit.
func (l *limiter) evict(now time.Time) {
	var victim netip.Prefix
	most, seen := -1e9, 0
	for p, b := range l.buckets {
		l.fill(b, now)
		if b.level > most {
			victim, most = p, b.level
		}
		if seen++; seen == 16 {
			break
		}
	}
	delete(l.buckets, victim)
}

// prefixOf is the IPv4 /32 or IPv6 /64 of a request's RemoteAddr; the zero
// prefix where it is unknown. The port never counts.
func prefixOf(remote string) netip.Prefix {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	a, bits := ap.Addr().Unmap().WithZone(""), 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}
