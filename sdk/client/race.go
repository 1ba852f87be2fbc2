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
	// dialTimeout bounds one endpoint's dial and the answer to its Hello.
	dialTimeout = 15 * time.Second
	// backoffMin doubles with each failure up to backoffMax; the pause is drawn
	// between half of it and all of it.
	backoffMin = 100 * time.Millisecond
	backoffMax = 30 * time.Second
	// distrust is how long a path stays unused after a downgrade, and comes last
	// after it failed in other ways.
	distrust = time.Minute
)

// backoff gives the pauses between reconnects.
type backoff struct{ step time.Duration }

func (b *backoff) reset() { b.step = 0 }

func (b *backoff) next() time.Duration {
	if b.step == 0 {
		b.step = backoffMin
	} else {
		b.step = min(2*b.step, backoffMax)
	}
	return b.step/2 + rand.N(b.step/2+1)
}

// race starts try(0), and try(i+1) as soon as one has failed or none has
// succeeded for delay. The first success wins; the others are ended by their
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
		timer   = time.NewTimer(delay)
	)
	defer timer.Stop()
	start := func() {
		if i := started; i < n && ctx.Err() == nil {
			started++
			timer.Reset(delay)
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
