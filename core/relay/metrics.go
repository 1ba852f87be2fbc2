package relay

import "math/rand/v2"

type noMetrics struct{}

func (noMetrics) Committed(int, int, float64) {}
func (noMetrics) CommitFailed()               {}
func (noMetrics) Enqueued(int)                {}
func (noMetrics) Waiting(int)                 {}
func (noMetrics) Delivered(bool)              {}
func (noMetrics) Accepted(float64)            {}
func (noMetrics) FannedOut(int)               {}
func (noMetrics) Handed(float64)              {}
func (noMetrics) Duplicate()                  {}
func (noMetrics) Dropped(int)                 {}
func (noMetrics) Refused(string)              {}
func (noMetrics) Poisoned()                   {}
func (noMetrics) Purged(int)                  {}
func (noMetrics) Call(string)                 {}
func (noMetrics) CallsActive(int)             {}
func (noMetrics) Media(bool)                  {}
func (noMetrics) Transport(string)            {}

// jitter is a number below n: rounds of many nodes should not fall together.
func (h *Hub) jitter(n uint64) uint64 { return rand.N(max(n, 1)) }
