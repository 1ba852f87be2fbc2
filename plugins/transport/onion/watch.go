package onion

import (
	"sync"
	"time"
)

// watch reports when nothing has moved for a while.
type watch struct {
	limit time.Duration
	timer *time.Timer
	late  chan struct{}
	once  sync.Once
}

func newWatch(limit time.Duration) *watch {
	w := &watch{limit: limit, late: make(chan struct{})}
	w.timer = time.AfterFunc(limit, func() { w.once.Do(func() { close(w.late) }) })
	return w
}

// moved begins the time anew.
func (w *watch) moved() {
	if w.timer.Stop() {
		w.timer.Reset(w.limit)
	}
}

// stop ends the watch.
func (w *watch) stop() { w.timer.Stop() }
