package pluginhost

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/sdk"
)

// script is a process whose end and answers a test decides.
type script struct {
	id      int
	done    chan struct{}
	err     error
	ping    func(ctx context.Context) error
	drained func(ctx context.Context)
	mu      sync.Mutex
	log     []string
}

func (p *script) note(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, s)
}

func (p *script) said() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.log...)
}

func (p *script) PID() int              { return p.id }
func (p *script) Done() <-chan struct{} { return p.done }
func (p *script) Err() error            { return p.err }
func (p *script) Ping(ctx context.Context) error {
	p.mu.Lock()
	ping := p.ping
	p.mu.Unlock()
	if ping != nil {
		return ping(ctx)
	}
	return nil
}
func (p *script) serve() { p.note("serve") }
func (p *script) drain(ctx context.Context) {
	p.note("drain")
	if p.drained != nil {
		p.drained(ctx)
	}
}
func (p *script) close()          { p.note("close") }
func (p *script) crash(err error) { p.err = err; close(p.done) }

// stage makes scripts and remembers them.
type stage struct {
	mu    sync.Mutex
	all   []*script
	fails func(n int) error
}

func (s *stage) start(context.Context, run) (run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.all)
	if s.fails != nil {
		if err := s.fails(n); err != nil {
			s.all = append(s.all, nil)
			return nil, err
		}
	}
	p := &script{id: n + 1, done: make(chan struct{})}
	s.all = append(s.all, p)
	return p, nil
}

func (s *stage) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

func (s *stage) last() *script {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[len(s.all)-1]
}

func theatre(start starter, beside bool) *supervisor {
	s := &supervisor{
		name: "transport x", log: slog.New(slog.DiscardHandler), beside: beside,
		drainLimit: func() time.Duration { return 20 * time.Second }, moved: func() {}, restarted: func() {},
	}
	s.launch(start)
	return s
}

var errBang = errors.New("bang")

func TestCrashesDoubleThePauseAndPark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := new(stage)
		s := theatre(st.start, true)
		defer s.stop()
		synctest.Wait()
		st.last().crash(errBang)
		synctest.Wait()
		for i := 1; i < 4; i++ { // the first one was answered at once
			most := backoffFirst << (i - 1)
			low := most / 2
			if v := s.look(); v.phase != Running || v.current.PID() != i+1 || v.restarts != i {
				t.Fatalf("before crash %d: %+v", i, v)
			}
			st.last().crash(errBang)
			synctest.Wait()
			if v := s.look(); v.phase != Backoff || !errors.Is(v.err, errBang) {
				t.Fatalf("after crash %d: %+v", i, v)
			}
			time.Sleep(low - 1)
			synctest.Wait()
			if st.count() != i+1 {
				t.Errorf("crash %d: started again too early", i)
			}
			time.Sleep(most - low + 1)
			synctest.Wait()
			if st.count() != i+2 {
				t.Errorf("crash %d: not started again within %v", i, most)
			}
		}
		st.last().crash(errBang)
		synctest.Wait()
		if v := s.look(); v.phase != Parked || v.restarts != 5 {
			t.Fatalf("after five: %+v", v)
		}
		time.Sleep(time.Hour)
		if st.count() != 5 {
			t.Error("a parked plugin was started")
		}
		if _, err := s.wait(t.Context()); sdk.KindOf(err) != sdk.Unavailable {
			t.Errorf("waiting for it: %v", err)
		}
		// An operator's upgrade ends that.
		if err := s.upgrade(t.Context(), st.start); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if v := s.look(); v.phase != Running || v.current.PID() != 6 {
			t.Errorf("after the upgrade: %+v", v)
		}
	})
}

func TestHealthBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := new(stage)
		s := theatre(st.start, true)
		defer s.stop()
		synctest.Wait()
		for i := range 20 { // each a little over a minute after the other: never parked, never slow
			time.Sleep(healthy)
			st.last().crash(errBang)
			synctest.Wait()
			time.Sleep(backoffFirst)
			synctest.Wait()
			if v := s.look(); v.phase != Running {
				t.Fatalf("crash %d: not running after the first pause: %+v", i, v)
			}
		}
	})
}

func TestPauseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &stage{fails: func(int) error { return &sdk.Error{Kind: sdk.Unavailable, Text: "the database is away"} }}
		s := theatre(st.start, true)
		defer s.stop()
		time.Sleep(10 * time.Minute)
		before := st.count()
		time.Sleep(time.Hour)
		if n := st.count() - before; n < 110 || n > 250 {
			t.Errorf("%d tries in an hour", n)
		}
		if v := s.look(); v.phase != Backoff {
			t.Errorf("a passing reason parked it: %+v", v)
		}
	})
}

func TestWhatWaitingDoesNotMend(t *testing.T) {
	for name, err := range map[string]error{
		"configuration": &sdk.ConfigError{Key: "listen", Text: "wrong"},
		"refused":       refuse("transport x", "changed"),
		"protocol":      &sdk.Error{Kind: sdk.Unsupported, Text: "too old"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &stage{fails: func(int) error { return err }}
				s := theatre(st.start, true)
				defer s.stop()
				time.Sleep(time.Hour)
				if v := s.look(); v.phase != Parked || st.count() != 1 {
					t.Errorf("%+v after %d starts", v, st.count())
				}
				if got := s.upgrade(t.Context(), st.start); !errors.Is(got, err) {
					t.Errorf("upgrade: %v", got)
				}
				synctest.Wait()
				if v := s.look(); v.phase != Parked {
					t.Errorf("%+v", v)
				}
			})
		})
	}
}

func TestEndsDuringTheStartCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &stage{fails: func(int) error { return endedError{errBang} }}
		s := theatre(st.start, true)
		defer s.stop()
		time.Sleep(time.Minute)
		if v := s.look(); v.phase != Parked || st.count() != crashes {
			t.Errorf("%+v after %d starts", v, st.count())
		}
	})
}

func TestHung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := new(stage)
		s := theatre(st.start, true)
		defer s.stop()
		synctest.Wait()
		first := st.last()
		var asked atomic.Int32
		first.mu.Lock()
		first.ping = func(ctx context.Context) error {
			if asked.Add(1) == 1 {
				return errBang // one miss is forgiven
			}
			if asked.Load() == 2 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		first.mu.Unlock()
		time.Sleep(4*pingEvery + pingEvery)
		synctest.Wait()
		if v := s.look(); v.current == nil || v.current.PID() != 1 {
			t.Fatalf("given up too early: %+v", v)
		}
		time.Sleep(2*pingEvery + backoffFirst)
		synctest.Wait()
		if v := s.look(); v.phase != Running || v.current.PID() != 2 {
			t.Errorf("%+v", v)
		}
		if said := first.said(); len(said) != 2 || said[1] != "close" {
			t.Errorf("the hung one: %v", said)
		}
	})
}

func TestUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := new(stage)
		s := theatre(st.start, true)
		synctest.Wait()
		old := st.last()
		leave := make(chan struct{})
		old.drained = func(context.Context) { <-leave }
		// One that fails disturbs nothing.
		if err := s.upgrade(t.Context(), func(_ context.Context, prev run) (run, error) {
			if prev != run(old) {
				t.Error("the running one was not shown")
			}
			return nil, errBang
		}); !errors.Is(err, errBang) {
			t.Fatalf("%v", err)
		}
		if v := s.look(); v.current != run(old) || len(old.said()) != 1 {
			t.Fatalf("%+v %v", v, old.said())
		}
		if err := s.upgrade(t.Context(), st.start); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if v := s.look(); v.current.PID() != 2 || v.leaving != 1 || v.restarts != 0 {
			t.Fatalf("%+v", v)
		}
		close(leave)
		synctest.Wait()
		if v := s.look(); v.leaving != 0 || len(old.said()) != 3 {
			t.Errorf("%+v %v", v, old.said())
		}
		s.stop()
		if said := st.last().said(); len(said) != 3 || said[1] != "drain" || said[2] != "close" {
			t.Errorf("%v", said)
		}
		if v := s.look(); v.phase != Stopped || v.current != nil {
			t.Errorf("%+v", v)
		}
		if err := s.upgrade(t.Context(), st.start); sdk.KindOf(err) != sdk.Closed {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestUpgradeGivenUp: who stops waiting for an upgrade ends its attempt, and is told what
// came of it.
func TestUpgradeGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := new(stage)
		s := theatre(st.start, true)
		defer s.stop()
		synctest.Wait()
		slow := func(ctx context.Context, _ run) (run, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errBang) })
		if err := s.upgrade(ctx, slow); !errors.Is(err, errBang) {
			t.Errorf("ended early: %v", err)
		}
		if v := s.look(); v.phase != Running || v.current.PID() != 1 {
			t.Errorf("%+v", v)
		}
		// One that was made all the same is told as such.
		ctx, cancel = context.WithCancelCause(t.Context())
		if err := s.upgrade(ctx, func(c context.Context, prev run) (run, error) {
			cancel(errBang)
			return st.start(c, prev)
		}); err != nil {
			t.Errorf("made all the same: %v", err)
		}
		if v := s.look(); v.phase != Running || v.current.PID() != 2 {
			t.Errorf("%+v", v)
		}
	})
}

// TestParkedStaysParked: an upgrade that fails for a passing reason does not start what
// was given up.
func TestParkedStaysParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &stage{fails: func(int) error { return refuse("transport x", "changed") }}
		s := theatre(st.start, true)
		defer s.stop()
		synctest.Wait()
		if err := s.upgrade(t.Context(), func(context.Context, run) (run, error) { return nil, errBang }); !errors.Is(err, errBang) {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Hour)
		if v := s.look(); v.phase != Parked || !errors.Is(v.err, errBang) || st.count() != 1 {
			t.Errorf("%+v after %d starts", v, st.count())
		}
	})
}

// TestUpgradeAfter: where two cannot work at once, the old one goes first, and comes
// back if the new one does not start.
func TestUpgradeAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := new(stage)
		s := theatre(st.start, false)
		defer s.stop()
		synctest.Wait()
		old := st.last()
		if err := s.upgrade(t.Context(), func(_ context.Context, prev run) (run, error) {
			if said := old.said(); prev != nil || said[len(said)-1] != "close" {
				t.Errorf("two at once: %v %v", prev, said)
			}
			return nil, &sdk.Error{Kind: sdk.Invalid, Text: "wrong"}
		}); sdk.KindOf(err) != sdk.Invalid {
			t.Fatalf("%v", err)
		}
		time.Sleep(backoffFirst)
		synctest.Wait()
		if v := s.look(); v.phase != Running || v.current.PID() != 2 {
			t.Fatalf("the earlier one did not come back: %+v", v)
		}
		if err := s.upgrade(t.Context(), st.start); err != nil || s.look().current.PID() != 3 {
			t.Errorf("%v %+v", err, s.look())
		}
	})
}

func TestStopIsPrompt(t *testing.T) {
	for _, phase := range []Phase{Starting, Backoff, Parked} {
		t.Run(string(phase), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := theatre(func(ctx context.Context, _ run) (run, error) {
					switch phase {
					case Starting:
						<-ctx.Done()
						return nil, ctx.Err()
					case Backoff:
						return nil, errBang
					}
					return nil, refuse("x", "no")
				}, true)
				synctest.Wait()
				if v := s.look(); v.phase != phase {
					t.Fatalf("%+v", v)
				}
				began := time.Now()
				s.stop()
				if time.Since(began) > 0 {
					t.Errorf("it took %v", time.Since(began))
				}
			})
		})
	}
}

// TestDrainIsBounded: a process that ignores its drain is closed all the same.
func TestDrainIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := new(stage)
		s := theatre(st.start, true)
		synctest.Wait()
		st.last().drained = func(ctx context.Context) { <-ctx.Done() }
		began := time.Now()
		s.stop()
		if d := time.Since(began); d != 20*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}
