package reality

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
)

// How often the cover is looked at: soon again while something is wrong, rarely while
// all is well.
const (
	firstRetry = time.Second
	mostRetry  = time.Minute
	relook     = 6 * time.Hour
)

// watch learns the cover, and learns it again.
func (s *server) watch() {
	var look sync.Once
	wait, retry := time.Duration(0), firstRetry
	for {
		timer := time.NewTimer(wait)
		select {
		case <-s.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-s.recheck:
			timer.Stop()
			if !s.pause(firstRetry) {
				return
			}
		}
		err := s.learn()
		look.Do(func() { close(s.looked) })
		if err != nil {
			if s.ctx.Err() != nil {
				return
			}
			if short(err) {
				s.shortOfFiles(err)
			} else {
				s.health.set(troubleCover, err)
			}
			s.log.Warn("cover is not usable", slog.Any("err", err))
			wait, retry = retry, min(2*retry, mostRetry)
			continue
		}
		s.health.set(troubleCover, nil)
		s.log.Info("cover is known", append([]any{slog.String("cover", s.cover.String())}, s.figures.attrs()...)...)
		retry = firstRetry
		wait = relook + rand.N(relook/4)
	}
}

func (s *server) pause(d time.Duration) bool {
	select {
	case <-s.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// learn studies the cover and, if it is fit or forced, lets clients in.
func (s *server) learn() error {
	// Names are looked at one after the other.
	ctx, cancel := context.WithTimeout(s.ctx, time.Duration(1+len(s.ServerNames))*examineTime)
	defer cancel()
	err := checkLoop(ctx, s.cover, s.ln.Addr())
	s.looped.Store(errors.Is(err, errLoop))
	if err != nil {
		s.ready.Store(false)
		return err
	}
	verdict, studies, err := assess(ctx, s.cover, s.ServerNames, s.roots, s.now)
	if err != nil {
		return err
	}
	for _, f := range verdict.Findings {
		if f.Weight != Note {
			s.log.Warn("cover", slog.String("finding", f.String()))
		}
	}
	if err := verdict.Err(); err != nil && !s.Force {
		s.ready.Store(false)
		return err
	}
	for name, study := range studies {
		for kind, l := range study.looks {
			s.records.set(name, offered(kind), slices.Clone(l.after), len(l.early) == 1)
		}
	}
	s.ready.Store(true)
	s.checkClock(verdict.Ahead)
	return nil
}

// checkClock compares with the clock of a cover that is somewhere else. The cover's
// page has a second's resolution and was under way for some time.
func (s *server) checkClock(ahead time.Duration) {
	if _, remote := s.cover.(*site); !remote {
		return
	}
	if ahead.Abs() <= s.Window {
		s.health.set(troubleClock, nil)
		return
	}
	side := "ahead of"
	if ahead < 0 {
		side = "behind"
	}
	s.health.set(troubleClock, &sdk.Error{Kind: sdk.Unavailable, Op: "reality", Text: fmt.Sprintf(
		"this machine's clock is %s %s the cover's, more than the window of %s: clients are refused until it is set right",
		sdk.FormatDuration(ahead.Abs().Round(time.Second)), side, sdk.FormatDuration(s.Window))})
}
