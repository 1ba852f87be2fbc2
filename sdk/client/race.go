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
	// distrust is how long a path stays unused after a downgrade.
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

// race starts try(0), and try(i+1) as soon as try(i) fails or has been silent for
// delay. The first success wins, the others are ended by their context and
// whatever they still deliver is closed.
func race[T io.Closer](ctx context.Context, n int, delay time.Duration, try func(ctx context.Context, i int) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	type outcome struct {
		v   T
		err error
	}
	results := make(chan outcome, n)
	start := func(i int) {
		go func() {
			v, err := try(ctx, i)
			results <- outcome{v, err}
		}()
	}
	var (
		zero    T
		errs    []error
		started = 1
		ended   int
		timer   = time.NewTimer(delay)
	)
	defer timer.Stop()
	start(0)
	for ended < n {
		select {
		case r := <-results:
			ended++
			if r.err == nil {
				cancel()
				go func(left int) {
					for ; left > 0; left-- {
						if r := <-results; r.err == nil {
							r.v.Close()
						}
					}
				}(started - ended)
				return r.v, nil
			}
			errs = append(errs, r.err)
			var e *Error
			if errors.As(r.err, &e) && e.Kind == Refused {
				// The relay itself said no: another path would hear the same.
				cancel()
				go func(left int) {
					for ; left > 0; left-- {
						if r := <-results; r.err == nil {
							r.v.Close()
						}
					}
				}(started - ended)
				return zero, r.err
			}
			if started < n {
				start(started)
				started++
				timer.Reset(delay)
			}
		case <-timer.C:
			if started < n {
				start(started)
				started++
				timer.Reset(delay)
			}
		}
	}
	cancel()
	return zero, errors.Join(errs...)
}
