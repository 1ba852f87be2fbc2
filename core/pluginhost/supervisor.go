package pluginhost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
)

// The supervisor's times.
const (
	// pingEvery is how often a process is asked, and how long it may take; after
	// pingMisses in a row it counts as hung.
	pingEvery  = 5 * time.Second
	pingMisses = 2
	// backoffFirst doubles up to backoffMost; after healthy it begins anew. The first
	// crash within crashWindow is answered at once: clients wait.
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 30 * time.Second
	healthy      = 60 * time.Second
	// crashes within crashWindow park a plugin.
	crashes     = 5
	crashWindow = 2 * time.Minute
	// startLimit bounds one start: process, configuration, sockets.
	startLimit = 30 * time.Second
	// openLimit takes its place where a storage is opened, which may have to bring the
	// tables of a database to its version. Meanwhile the process is asked as it is later.
	openLimit = time.Hour
)

// pace are the times that a Host may choose; zero fields are the constants.
type pace struct{ ping, start time.Duration }

func (p pace) asks() time.Duration { return cmp.Or(p.ping, pingEvery) }

func (p pace) starts() time.Duration { return cmp.Or(p.start, startLimit) }

// Phase is where a supervised plugin stands.
type Phase string

// The phases.
const (
	Stopped  Phase = "stopped"
	Starting Phase = "starting"
	Running  Phase = "running"
	Draining Phase = "draining"
	// Backoff waits for the next start after an end that was not asked for.
	Backoff Phase = "backoff"
	// Parked is given up until an operator acts: the plugin may not run, its
	// configuration is wrong, or it ended five times in two minutes.
	Parked Phase = "parked"
)

// run is one started process that does its work.
type run interface {
	PID() int
	Done() <-chan struct{}
	// Err says why it ended.
	Err() error
	Ping(ctx context.Context) error
	// serve begins the work; it returns at once.
	serve()
	// drain ends the work in order, until ctx ends.
	drain(ctx context.Context)
	// close ends the process and gives everything back.
	close()
}

// starter starts a process beside prev, which is nil or still works.
type starter func(ctx context.Context, prev run) (run, error)

// supervisor keeps one process running.
type supervisor struct {
	name string
	log  *slog.Logger
	// beside says that two processes can work at once, so that an upgrade starts
	// the new one before the old one is drained.
	beside bool
	pace   pace
	// drainLimit bounds a drain.
	drainLimit func() time.Duration
	// moved is told of each change of phase.
	moved func()
	// restarted is told of each end that was not asked for.
	restarted func()

	commands chan command
	over     chan struct{}
	cancel   context.CancelFunc
	retired  sync.WaitGroup

	mu       sync.Mutex
	phase    Phase
	since    time.Time
	current  run
	leaving  int
	restarts int
	lastErr  error
	changed  chan struct{}

	// Of the loop.
	start starter
	pause time.Duration
	ends  []time.Time
}

// command asks for another starter; its attempt ends with ctx.
type command struct {
	ctx   context.Context
	start starter
	reply chan error
}

// launch starts the loop.
func (s *supervisor) launch(start starter) {
	ctx, cancel := context.WithCancel(context.Background())
	s.start, s.cancel, s.phase, s.since = start, cancel, Starting, time.Now()
	s.commands, s.over, s.changed = make(chan command), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(s.over)
		s.loop(ctx)
		s.retired.Wait()
		s.set(Stopped, nil, nil)
	}()
}

// stop drains the process and waits until it has ended.
func (s *supervisor) stop() {
	s.cancel()
	<-s.over
}

// upgrade replaces what runs by what start gives. The error says why what ran
// before goes on running. Whoever gives up early learns all the same whether the
// replacement was made.
func (s *supervisor) upgrade(ctx context.Context, start starter) error {
	c := command{ctx, start, make(chan error, 1)}
	select {
	case s.commands <- c:
	case <-s.over:
		return errStopped(s.name)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	err := <-c.reply
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

func errStopped(name string) error {
	return &sdk.Error{Kind: sdk.Closed, Op: name, Text: "it has been stopped"}
}

// set notes a phase and wakes who waits for one.
func (s *supervisor) set(p Phase, cur run, err error) {
	s.mu.Lock()
	if s.phase != p {
		s.phase, s.since = p, time.Now()
	}
	s.current = cur
	if err != nil {
		s.lastErr = err
	}
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	s.moved()
}

// snapshot is a moment's view.
type snapshot struct {
	phase    Phase
	since    time.Time
	current  run
	leaving  int
	restarts int
	err      error
	changed  <-chan struct{}
}

func (s *supervisor) look() snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return snapshot{s.phase, s.since, s.current, s.leaving, s.restarts, s.lastErr, s.changed}
}

// wait returns what runs, or why nothing does when ctx ends or the plugin is parked.
func (s *supervisor) wait(ctx context.Context) (run, error) {
	for {
		v := s.look()
		switch {
		case v.current != nil:
			return v.current, nil
		case v.phase == Stopped:
			return nil, errStopped(s.name)
		case v.phase == Parked:
			return nil, &sdk.Error{Kind: sdk.Unavailable, Op: s.name, Text: "it is parked", Err: v.err}
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return nil, &sdk.Error{Kind: sdk.Unavailable, Op: s.name, Text: "it is " + string(v.phase), Err: errors.Join(v.err, context.Cause(ctx))}
		}
	}
}

func (s *supervisor) loop(ctx context.Context) {
	for ctx.Err() == nil {
		s.set(Starting, nil, nil)
		cur, err := s.attempt(ctx, s.start, nil)
		if err != nil {
			s.rest(ctx, err, false)
			continue
		}
		if err := s.watch(ctx, cur); err != nil {
			s.rest(ctx, err, true)
		}
	}
}

// attempt starts once.
func (s *supervisor) attempt(ctx context.Context, start starter, prev run) (run, error) {
	ctx, cancel := context.WithTimeout(ctx, s.pace.starts())
	defer cancel()
	return start(ctx, prev)
}

// obey starts once for a command.
func (s *supervisor) obey(ctx context.Context, c command, prev run) (run, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	return s.attempt(ctx, c.start, prev)
}

// rest waits after an end, or after a start that failed: until the pause is over, or
// for an operator. crashed says that a process ended on its own.
func (s *supervisor) rest(ctx context.Context, err error, crashed bool) {
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	parked := hopeless(err)
	if crashed || processEnded(err) {
		s.ends = append(s.ends, now)
		for len(s.ends) > 0 && now.Sub(s.ends[0]) > crashWindow {
			s.ends = s.ends[1:]
		}
		parked = parked || len(s.ends) >= crashes
	}
	s.mu.Lock()
	s.restarts++
	s.mu.Unlock()
	s.restarted()
	if parked {
		s.log.Error("plugin parked", "error", err, "then", "run 'commucat plugin upgrade' or reload once it is mended")
		s.set(Parked, nil, err)
		s.await(ctx, nil)
		return
	}
	pause := time.Duration(0)
	if !crashed || len(s.ends) > 1 {
		s.pause = min(max(2*s.pause, backoffFirst), backoffMost)
		pause = s.pause/2 + rand.N(s.pause/2+1)
	}
	s.log.Warn("plugin will be started again", "error", err, "in", pause)
	s.set(Backoff, nil, err)
	t := time.NewTimer(pause)
	defer t.Stop()
	s.await(ctx, t.C)
}

// await waits for the timer or a command; what a command starts then is watched by
// the loop's next attempt, whose result the command learns.
func (s *supervisor) await(ctx context.Context, timer <-chan time.Time) {
	select {
	case <-ctx.Done():
	case <-timer:
	case c := <-s.commands:
		old := s.start
		s.set(Starting, nil, nil)
		cur, err := s.obey(ctx, c, nil)
		if err != nil {
			s.start = old
			if timer == nil || hopeless(err) {
				s.set(Parked, nil, err)
				c.reply <- err
				s.await(ctx, timer)
				return
			}
			c.reply <- err
			return
		}
		s.start, s.ends, s.pause = c.start, nil, 0
		c.reply <- nil
		if err := s.watch(ctx, cur); err != nil {
			s.rest(ctx, err, true)
		}
	}
}

// watch serves until cur ends on its own (why is the answer) or the supervisor is
// stopped (nil).
func (s *supervisor) watch(ctx context.Context, cur run) error {
	began := time.Now()
	s.begin(cur)
	asks := time.NewTicker(s.pace.asks())
	defer asks.Stop()
	answers := make(chan error, 1)
	asking, misses := false, 0
	for {
		select {
		case <-ctx.Done():
			s.set(Draining, nil, nil)
			s.end(cur)
			return nil
		case <-cur.Done():
			return s.lost(cur, cur.Err(), began)
		case <-asks.C:
			if !asking {
				asking = true
				go ask(ctx, s.pace.asks(), cur, answers)
			}
		case err := <-answers:
			asking = false
			if misses++; err == nil {
				misses = 0
			}
			if misses >= pingMisses {
				return s.lost(cur, &sdk.Error{Kind: sdk.Unavailable, Op: s.name, Text: "it does not answer any more", Err: err}, began)
			}
		case c := <-s.commands:
			next, err := s.replace(ctx, cur, c)
			c.reply <- err
			if next != nil {
				cur, began, misses = next, time.Now(), 0
				// An answer of the old one must not count for the new one.
				answers, asking = make(chan error, 1), false
			} else if s.look().current == nil {
				// Only the text: what is wrong with the new one must not park the old one.
				return fmt.Errorf("the upgrade failed: %v", err) //nolint:errorlint // on purpose
			}
		}
	}
}

// attended is ctx until a process that is not watched yet counts as hung; done must be
// called.
func (p pace) attended(ctx context.Context, ping func(context.Context) error) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var asking sync.WaitGroup
	asking.Go(func() {
		asks := time.NewTicker(p.asks())
		defer asks.Stop()
		for misses := 0; misses < pingMisses; {
			select {
			case <-ctx.Done():
				return
			case <-asks.C:
			}
			limit, end := context.WithTimeout(ctx, p.asks())
			err := ping(limit)
			end()
			if misses++; err == nil {
				misses = 0
			}
		}
		cancel(errors.New("it does not answer any more"))
	})
	return ctx, func() { cancel(nil); asking.Wait() }
}

func ask(ctx context.Context, limit time.Duration, r run, answers chan<- error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answers <- r.Ping(ctx)
}

func (s *supervisor) begin(r run) {
	r.serve()
	s.set(Running, r, nil)
	s.log.Info("plugin runs", "pid", r.PID())
}

// lost cleans up after an end that nobody asked for.
func (s *supervisor) lost(r run, err error, began time.Time) error {
	if time.Since(began) >= healthy {
		s.pause = 0
	}
	s.set(Backoff, nil, err)
	r.close()
	return err
}

// replace upgrades: beside the running process, or after it where two cannot work
// at once. Without a next run the answer's error says whether cur still runs: it is
// current then.
func (s *supervisor) replace(ctx context.Context, cur run, c command) (run, error) {
	if c.ctx.Err() != nil {
		return nil, context.Cause(c.ctx)
	}
	if !s.beside {
		s.set(Draining, nil, nil)
		s.end(cur)
		cur = nil
		c.ctx = context.Background() // nothing runs now: who gives up here must not leave it so
	}
	next, err := s.obey(ctx, c, cur)
	if err != nil {
		return nil, err
	}
	s.start, s.ends, s.pause = c.start, nil, 0
	s.begin(next)
	if cur != nil {
		s.mu.Lock()
		s.leaving++
		s.mu.Unlock()
		s.retired.Go(func() {
			s.end(cur)
			s.mu.Lock()
			s.leaving--
			s.mu.Unlock()
			s.moved()
		})
	}
	return next, nil
}

// end drains a run and closes it.
func (s *supervisor) end(r run) {
	ctx, cancel := context.WithTimeout(context.Background(), s.drainLimit())
	defer cancel()
	r.drain(ctx)
	r.close()
	s.log.Info("plugin ended", "pid", r.PID())
}

// hopeless errors do not go away by waiting.
func hopeless(err error) bool {
	switch sdk.KindOf(err) {
	case sdk.Invalid, sdk.Unsupported, sdk.Corrupt, sdk.NotFound:
		return true
	}
	return errors.Is(err, sdk.Denied)
}

// endedError is a start that failed because the process ended by itself.
type endedError struct{ error }

func (e endedError) Unwrap() error { return e.error }

func processEnded(err error) bool {
	var e endedError
	return errors.As(err, &e)
}
