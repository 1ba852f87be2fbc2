package relay

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// outageAgain is how often a storage that goes on failing is told of.
	outageAgain = 30 * time.Second
	// outageOver is how long nothing fails before it is told that all is well.
	outageOver = 5 * time.Second
)

// outage tells the log that a storage fails: at the beginning, from time to time while it
// lasts, and at the end. Every lane repeats what failed several times a second.
type outage struct {
	log    *slog.Logger
	lasts  atomic.Bool // what works looks at without a lock
	mu     sync.Mutex
	begun  time.Time
	said   time.Time
	last   time.Time
	failed int // calls
}

// fails notes a failed call.
func (o *outage) fails(now time.Time, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.lasts.Load() {
		o.begun, o.failed = now, 0
		o.lasts.Store(true)
	}
	o.failed++
	o.last = now
	if now.Sub(o.said) < outageAgain {
		return
	}
	o.said = now
	o.log.Warn("messages cannot be stored; their senders get no acknowledgement meanwhile", "failed_calls", o.failed, "since", o.begun, "error", err)
}

// works notes one that did what it should.
func (o *outage) works(now time.Time) {
	if !o.lasts.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.lasts.Load() || now.Sub(o.last) < outageOver {
		return // other lanes may still fail
	}
	o.lasts.Store(false)
	o.said = time.Time{}
	o.log.Info("messages are stored again", "failed_calls", o.failed, "since", o.begun)
}
