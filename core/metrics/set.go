package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Set is the relay's instruments. The zero value is not usable, nil is.
type Set struct {
	registry *prometheus.Registry
	counters [counterCount]prometheus.Counter
	gauges   [gaugeCount]prometheus.Gauge
	hists    [histogramCount]prometheus.Histogram
	vecs     [vecCount]*vec
	labelled [labelledCount]*gaugeVec
}

// Options describe the program for the build information series.
type Options struct {
	Version string
	// Process adds the Go runtime's and the process's own collectors.
	Process bool
}

// New makes a Set with a registry of its own.
func New(opt Options) *Set {
	s := &Set{registry: prometheus.NewRegistry()}
	for i, d := range counterDefs {
		s.counters[i] = prometheus.NewCounter(prometheus.CounterOpts{Name: d.name, Help: d.help})
		s.registry.MustRegister(s.counters[i])
	}
	for i, d := range gaugeDefs {
		s.gauges[i] = prometheus.NewGauge(prometheus.GaugeOpts{Name: d.name, Help: d.help})
		s.registry.MustRegister(s.gauges[i])
	}
	for i, d := range histogramDefs {
		s.hists[i] = prometheus.NewHistogram(prometheus.HistogramOpts{Name: d.name, Help: d.help, Buckets: d.buckets})
		s.registry.MustRegister(s.hists[i])
	}
	for i, d := range vecDefs {
		s.vecs[i] = newVec(d)
		s.registry.MustRegister(s.vecs[i].vec)
	}
	for i, d := range labelledDefs {
		s.labelled[i] = newGaugeVec(d)
		s.registry.MustRegister(s.labelled[i].vec)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "commucat_build_info", Help: "Always 1; the label names the running version.",
		ConstLabels: prometheus.Labels{"version": opt.Version},
	})
	build.Set(1)
	s.registry.MustRegister(build)
	if opt.Process {
		s.registry.MustRegister(collectors.NewGoCollector(),
			collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	return s
}

// Registry returns the registry, so that a package may add collectors of its
// own; nil for a nil Set.
func (s *Set) Registry() *prometheus.Registry {
	if s == nil {
		return nil
	}
	return s.registry
}

// Handler serves the text exposition format. It answers 404 for a nil Set.
// OpenMetrics is not offered: it would rename the inherited counters.
func (s *Set) Handler() http.Handler {
	if s == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	})
}

// Add adds n to a counter; n < 0 is ignored.
func (s *Set) Add(c Counter, n int) {
	if s == nil || n < 0 || c >= counterCount {
		return
	}
	s.counters[c].Add(float64(n))
}

// Inc adds one to a counter.
func (s *Set) Inc(c Counter) { s.Add(c, 1) }

// Set sets a gauge.
func (s *Set) Set(g Gauge, v float64) {
	if s == nil || g >= gaugeCount {
		return
	}
	s.gauges[g].Set(v)
}

// Move adds d, which may be negative, to a gauge.
func (s *Set) Move(g Gauge, d int) {
	if s == nil || g >= gaugeCount {
		return
	}
	s.gauges[g].Add(float64(d))
}

// Observe records a value in a histogram: seconds, bytes or counts, as the
// histogram's name says.
func (s *Set) Observe(h Histogram, v float64) {
	if s == nil || h >= histogramCount {
		return
	}
	s.hists[h].Observe(v)
}

// Since records the seconds from start to now in a histogram. The clock is the
// process's monotonic one.
func (s *Set) Since(h Histogram, start time.Time) {
	if s == nil {
		return
	}
	s.Observe(h, time.Since(start).Seconds())
}

// Count adds one to a labelled counter. value must come from a small closed
// set; see MaxLabels.
func (s *Set) Count(v Vec, value string) { s.CountN(v, value, 1) }

// CountN adds n to a labelled counter; n < 0 is ignored.
func (s *Set) CountN(v Vec, value string, n int) {
	if s == nil || n < 0 || v >= vecCount {
		return
	}
	s.vecs[v].with(value).Add(float64(n))
}

// Label sets a labelled gauge.
func (s *Set) Label(g Labelled, value string, to float64) {
	if s == nil || g >= labelledCount {
		return
	}
	s.labelled[g].with(value).Set(to)
}

// MoveLabel adds d, which may be negative, to a labelled gauge.
func (s *Set) MoveLabel(g Labelled, value string, d int) {
	if s == nil || g >= labelledCount {
		return
	}
	s.labelled[g].with(value).Add(float64(d))
}
