package metrics

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// MaxLabels is the number of values that one label may take; what comes later
// is counted under "other".
const MaxLabels = 64

const otherLabel = "other"

// cache resolves label values to instruments without allocating for known ones.
type cache[T any] struct {
	known sync.Map // string → T
	count atomic.Int32
	mu    sync.Mutex
}

func (c *cache[T]) get(value string, make func(string) T) T {
	if t, ok := c.known.Load(value); ok {
		return t.(T)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.known.Load(value); ok {
		return t.(T)
	}
	if value != otherLabel && (c.count.Load() >= MaxLabels || !validLabel(value)) {
		if t, ok := c.known.Load(otherLabel); ok {
			return t.(T)
		}
		value = otherLabel
	} else if value != otherLabel {
		c.count.Add(1)
	}
	value = strings.Clone(value)
	t := make(value)
	c.known.Store(value, t)
	return t
}

// validLabel keeps label values to the alphabet of names and codes, so that no
// caller's slip puts an address or a token there unseen.
func validLabel(s string) bool {
	if s == "" || len(s) > 48 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

type vec struct {
	vec *prometheus.CounterVec
	cache[prometheus.Counter]
}

func newVec(d vecDef) *vec {
	return &vec{vec: prometheus.NewCounterVec(prometheus.CounterOpts{Name: d.name, Help: d.help}, []string{d.label})}
}

func (v *vec) with(value string) prometheus.Counter {
	return v.get(value, func(s string) prometheus.Counter { return v.vec.WithLabelValues(s) })
}

type gaugeVec struct {
	vec *prometheus.GaugeVec
	cache[prometheus.Gauge]
}

func newGaugeVec(d vecDef) *gaugeVec {
	return &gaugeVec{vec: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: d.name, Help: d.help}, []string{d.label})}
}

func (v *gaugeVec) with(value string) prometheus.Gauge {
	return v.get(value, func(s string) prometheus.Gauge { return v.vec.WithLabelValues(s) })
}
