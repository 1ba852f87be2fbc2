package client

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"
)

// Timing of dials and reconnects.
const (
	// raceDelay is how long one endpoint may be silent before the next is tried
	// beside it.
	raceDelay = 700 * time.Millisecond
	// raceMost is how long that may become, once in a race, when no way has led to the relay for a
	// while, or it has sent its clients away: it has all of them at the door at once
	// then, and who knocks by several ways makes the others wait.
	raceMost = 8 * time.Second
	// dialTimeout bounds one endpoint's dial and the answer to its Hello.
	dialTimeout = 15 * time.Second
	// backoffMin doubles with each failure up to backoffMax; the pause is drawn
	// between half of it and all of it.
	backoffMin = 100 * time.Millisecond
	backoffMax = 30 * time.Second
	// distrust is how long a path stays unused after a downgrade, and comes last
	// after it failed in other ways.
	distrust = time.Minute
	// steady is how long a session must have stood for the next one to follow at once,
	// and for its way not to be doubted although no message came.
	// backoffEased bounds the pause after a shorter one that did bring something.
	steady       = 10 * time.Second
	backoffEased = time.Second
)

// backoff gives the pauses between reconnects.
type backoff struct{ step time.Duration }

func (b *backoff) reset() { b.step = 0 }

// after takes a session into account that ended with err. A relay that has every session
// move on at once, or fails at each first message, must not be dialled ten times a second.
func (b *backoff) after(s *session, err error) {
	switch {
	case isKind(err, Refused):
	case s.proven(), s.progressed() && s.cut.Load():
		b.reset()
	case s.progressed():
		b.step = min(b.step, backoffEased/2)
	}
}

func (b *backoff) next() time.Duration {
	if b.step == 0 {
		b.step = backoffMin
	} else {
		b.step = min(2*b.step, backoffMax)
	}
	return b.step/2 + rand.N(b.step/2+1)
}

// patience is how long a race may hear nothing after a pause of d before it tries a second
// way beside another.
func patience(d time.Duration) time.Duration { return min(max(4*d, raceDelay), raceMost) }

// race starts try(0), and try(i+1) as soon as one has failed or the newest has been silent
// for raceDelay, but none beside another before delay has passed: a relay with a crowd at
// its door is given time, and a device whose first ways are blocked waits for that once and
// not for each. The first success wins; the others are ended by their
// context, and what they still deliver is closed. When ctx ends, race returns
// with its cause and nothing further is started.
func race[T io.Closer](ctx context.Context, n int, delay time.Duration, try func(ctx context.Context, i int) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		v   T
		err error
	}
	var (
		zero    T
		errs    []error
		started int
		ended   int
		results = make(chan outcome, n)
		began   = time.Now()
		timer   = time.NewTimer(delay)
	)
	defer timer.Stop()
	start := func() {
		if i := started; i < n && ctx.Err() == nil {
			started++
			timer.Reset(max(raceDelay, delay-time.Since(began)))
			go func() {
				v, err := try(ctx, i)
				results <- outcome{v, err}
			}()
		}
	}
	leave := func() {
		go func(left int) {
			for ; left > 0; left-- {
				if r := <-results; r.err == nil {
					r.v.Close()
				}
			}
		}(started - ended)
	}
	start()
	for ended < started {
		select {
		case r := <-results:
			ended++
			if r.err == nil {
				leave()
				return r.v, nil
			}
			errs = append(errs, r.err)
			start()
		case <-timer.C:
			start()
		case <-ctx.Done():
			leave()
			return zero, context.Cause(ctx)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return zero, err // it ended before all were tried, or any
	}
	return zero, errors.Join(errs...)
}
