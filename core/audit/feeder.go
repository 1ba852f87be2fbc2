package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

const (
	feedPage     = 64
	feedTimeout  = 30 * time.Second
	firstPause   = 100 * time.Millisecond
	longestPause = time.Minute
)

// feeder brings records to one ledger.
type feeder struct {
	sink Sink
	r    *Recorder
	wake chan struct{}
	// gate is full while records are being given, and while nobody may; see Hold.
	gate chan struct{}
	// hurried belongs to run: the try at the end has been made.
	hurried bool

	mu      sync.Mutex
	done    uint64 // last record that the ledger has
	err     error
	waiters []chan struct{}
}

func (f *feeder) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *feeder) run(ctx context.Context) {
	pause := firstPause
	for {
		err := f.drain(ctx)
		if ctx.Err() != nil {
			return
		}
		var again <-chan time.Time
		var timer *time.Timer
		if f.note(err); err != nil {
			f.r.o.Log.Warn("ledger takes no records", "ledger", f.sink.Name, "error", err, "again_in", pause)
			timer = time.NewTimer(pause)
			again = timer.C
			pause = min(2*pause, longestPause)
		} else {
			pause = firstPause
		}
		if !f.wait(ctx, again) {
			return
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// wait ends with a new record; after a failure with the pause, or with the recorder
// coming to its end, which is worth one more try.
func (f *feeder) wait(ctx context.Context, again <-chan time.Time) bool {
	wake, ending := f.wake, f.r.ending
	if again != nil {
		wake = nil
	}
	if again == nil || f.hurried {
		ending = nil
	}
	select {
	case <-wake:
	case <-again:
	case <-ending:
		f.hurried = true
	case <-ctx.Done():
		return false
	}
	return true
}

// drain submits everything that the ledger lacks.
func (f *feeder) drain(ctx context.Context) error {
	for {
		at := f.taken()
		if at >= f.r.spool.Head().Seq {
			return nil
		}
		page, err := f.r.page(ctx, at, feedPage)
		if err != nil {
			return err
		}
		if len(page) == 0 || page[0].Seq != at+1 {
			return &sdk.Error{Kind: sdk.NotFound, Op: "audit", Text: fmt.Sprintf(
				"record %d is in no ledger any more; restore %s from a copy that has it, or take it out of ledger.backends", at+1, f.sink.Name)}
		}
		if err := f.give(ctx, page); err != nil {
			return err
		}
		f.r.trim()
	}
}

// give submits records, unless the ledgers are held.
func (f *feeder) give(ctx context.Context, page []ledger.Record) error {
	select {
	case f.gate <- struct{}{}:
		defer func() { <-f.gate }()
	case <-ctx.Done():
		return ctx.Err()
	}
	call, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	err := f.sink.Ledger.Submit(call, page)
	if err == nil {
		f.advance(page[len(page)-1])
	}
	return err
}

func (f *feeder) taken() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done
}

func (f *feeder) advance(last ledger.Record) {
	f.mu.Lock()
	f.done, f.err = last.Seq, nil
	f.release()
	f.mu.Unlock()
	f.r.sent(f.sink.Name, last)
	f.report()
}

// report tells how far behind the ledger is. Each change is followed by a report, and
// the lock keeps an older one from coming last.
func (f *feeder) report() {
	f.mu.Lock()
	defer f.mu.Unlock()
	head := f.r.spool.Head().Seq
	f.r.o.Behind(f.sink.Name, head-min(head, f.done))
}

func (f *feeder) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	f.release()
}

func (f *feeder) release() {
	for _, w := range f.waiters {
		close(w)
	}
	f.waiters = nil
}

// reach waits until the ledger has record seq, or ctx ends.
func (f *feeder) reach(ctx context.Context, seq uint64) error {
	for {
		f.mu.Lock()
		if f.done >= seq {
			f.mu.Unlock()
			return nil
		}
		changed := make(chan struct{})
		f.waiters = append(f.waiters, changed)
		last := f.err
		f.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), last)
		}
	}
}

func (f *feeder) state(head uint64) State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return State{Name: f.sink.Name, Behind: head - min(head, f.done), Err: f.err}
}
