package redis

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// clock brings a relay's times to the server's: of nodes whose clocks differ one would
// take the other's routes and presence for over, and a shared rate limit would refuse
// everybody at the slower one. What is stored is in the server's time; small differences
// stay, so that the time a call takes changes nothing.
type clock struct {
	local func() time.Time
	log   *slog.Logger
	ahead atomic.Int64 // the server's time minus ours, ns
	known atomic.Bool  // ahead was found once
	told  atomic.Bool
}

const (
	// clockSame is a difference that counts as none; clockFar is worth a line in the log.
	clockSame = 2 * time.Second
	clockFar  = time.Minute
	// clockEvery is how often it is looked at; clockFirst until it was for the first time.
	clockEvery = time.Minute
	clockFirst = time.Second
)

// server is a time of ours in the server's.
func (c *clock) server(now time.Time) time.Time { return now.Add(time.Duration(c.ahead.Load())) }

// compare asks the server for its time. Of an answer that came slowly nothing is learned.
func (s *store) compare(ctx context.Context) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	asked := s.clock.local()
	theirs, err := s.db.Time(ctx).Result()
	if err != nil {
		return plain("ready", err)
	}
	took := s.clock.local().Sub(asked)
	if took > clockSame {
		return nil
	}
	ahead := theirs.Sub(asked.Add(took / 2))
	if ahead.Abs() < clockSame {
		ahead = 0
	}
	s.clock.ahead.Store(int64(ahead))
	s.clock.known.Store(true)
	if far := ahead.Abs() >= clockFar; far != s.clock.told.Swap(far) && far {
		s.clock.log.Warn("this machine's clock is not the server's; set one of them", "server_ahead", ahead.Round(time.Second))
	}
	return nil
}

// keepTime compares the clocks now and then until the store is closed.
func (s *store) keepTime() {
	timer := time.NewTimer(s.clock.wait())
	defer timer.Stop()
	for {
		select {
		case <-s.watched.ctx.Done():
			return
		case <-timer.C:
			_ = s.compare(s.watched.ctx) // a server that is away is noticed by who needs it
			timer.Reset(s.clock.wait())
		}
	}
}

// wait is how long until the next comparison: until the first one all times go in by
// this machine's clock.
func (c *clock) wait() time.Duration {
	if c.known.Load() {
		return clockEvery
	}
	return clockFirst
}
