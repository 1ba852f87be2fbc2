package main

import (
	"math/rand/v2"
	"time"
)

const (
	// restartFirst doubles up to restartMost with each end of a process that had lived
	// for less than restartHealthy; the pause is drawn between half of it and all of it.
	restartFirst   = 100 * time.Millisecond
	restartMost    = 30 * time.Second
	restartHealthy = time.Minute
)

// restarts are the pauses between the starts of a process. The first end of several is
// answered at once.
type restarts struct {
	began time.Time     // when the newest one was ready
	step  time.Duration // of the next pause
	next  time.Time     // no start before
	last  error         // why the newest one ended, or did not start
}

// ended notes an end, or a start that failed.
func (r *restarts) ended(now time.Time, err error) {
	if !r.began.IsZero() && now.Sub(r.began) >= restartHealthy {
		r.step = 0
	}
	r.began, r.last = time.Time{}, err
	r.next = now.Add(r.step/2 + rand.N(r.step/2+1))
	r.step = min(max(2*r.step, restartFirst), restartMost)
}

// early is the newest end while it is too early for a start.
func (r *restarts) early(now time.Time) error {
	if now.Before(r.next) {
		return r.last
	}
	return nil
}
