package agent

import (
	"context"
	"time"
)

// Pauses are what is waited between starts of a program, from Least doubling to Most. One
// that was there for Well begins anew.
type Pauses struct{ Least, Most, Well time.Duration }

// Next is the pause behind one of before (0: there was none) and a life of that length.
func (p Pauses) Next(before, life time.Duration) time.Duration {
	if before == 0 || life > p.Well {
		return p.Least
	}
	return min(2*before, p.Most)
}

// Keep runs one life of a program after the other until ctx ends. ended is told why one
// did.
func Keep(ctx context.Context, p Pauses, life func() error, ended func(error)) {
	var pause time.Duration
	for ctx.Err() == nil {
		began := time.Now()
		err := life()
		if ctx.Err() != nil {
			return
		}
		pause = p.Next(pause, time.Since(began))
		ended(err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}
