package pluginhost

import (
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/sdk/host"
)

// fill sets what every kind has.
func (s *State) fill(v snapshot, f Found) {
	s.State, s.Since, s.Leaving, s.Restarts = v.phase, v.since, v.leaving, v.restarts
	s.Version = f.Version
	if f.File != "" {
		s.File = f.Path()
	}
	if v.current != nil {
		s.PID = v.current.PID()
	}
	if v.err != nil {
		s.Error = v.err.Error()
	}
}

// counts sets what is counted over all processes.
func (s *State) counts(c host.Stats) {
	s.Foreign, s.Truncated, s.Malformed, s.LogDropped = c.Foreign, c.Truncated, c.Malformed, c.LogDropped
}

// sum adds what counts up.
func sum(a, b host.Stats) host.Stats {
	return host.Stats{
		Foreign: a.Foreign + b.Foreign, Truncated: a.Truncated + b.Truncated, Malformed: a.Malformed + b.Malformed,
		LogDropped: a.LogDropped + b.LogDropped,
	}
}

func number(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// phases number the states for a gauge.
func phaseNumber(p Phase) float64 {
	for i, q := range []Phase{Stopped, Starting, Running, Draining, Backoff, Parked} {
		if p == q {
			return float64(i)
		}
	}
	return -1
}

func reportPhase(m *metrics.Set, name string, p Phase) {
	m.Label(metrics.PluginUp, name, number(p == Running))
	m.Label(metrics.PluginState, name, phaseNumber(p))
}

// reportStats adds what is new since told, and gives what is told now.
func reportStats(m *metrics.Set, name string, told, now host.Stats) host.Stats {
	m.Label(metrics.PluginStreams, name, float64(now.Pumped+now.Sockets))
	m.CountN(metrics.PluginForeign, name, int(now.Foreign-told.Foreign))
	m.CountN(metrics.PluginTruncated, name, int(now.Truncated-told.Truncated))
	m.CountN(metrics.PluginLogDropped, name, int(now.LogDropped-told.LogDropped))
	m.Add(metrics.DescriptorsRejected, int(now.Foreign-told.Foreign))
	return now
}
