package client

import (
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

const (
	// showAhead is how many stored messages wait in memory for the handler; more
	// stay in the store alone.
	showAhead = 1024
	// windowCache is how many duplicate tables (520 bytes each) are held.
	windowCache = 1024
)

// inbox stores what arrives and shows it, once and in order.
type inbox struct {
	store  Store
	handle func(Message) error

	// The collecting side belongs to the reader of the present connection.
	fresh   []Message
	windows map[WindowKey]*ccp.Window
	touched map[WindowKey]*ccp.Window
	seen    int    // deliveries since the last store
	cursor  uint64 // highest position stored or about to be

	mu      sync.Mutex
	wake    *sync.Cond
	ready   []Message
	unread  bool // the store holds messages that are not in ready
	closed  bool
	stopped chan struct{}
	failed  error
}

func openInbox(store Store, cursor uint64, handle func(Message) error) *inbox {
	in := &inbox{
		store: store, handle: handle, cursor: cursor, unread: true,
		windows: make(map[WindowKey]*ccp.Window), touched: make(map[WindowKey]*ccp.Window),
		stopped: make(chan struct{}),
	}
	in.wake = sync.NewCond(&in.mu)
	go in.show()
	return in
}

// collect takes one delivery; duplicates are counted and dropped. What was
// collected is stored by commit.
func (in *inbox) collect(m Message) error {
	in.seen++
	in.cursor = max(in.cursor, m.Position)
	key := WindowKey{Device: m.Device, Log: m.ID.Log}
	w := in.windows[key]
	if w == nil {
		var err error
		if w, err = in.store.Window(key); err != nil {
			return err
		}
		if len(in.windows) >= windowCache {
			in.windows = make(map[WindowKey]*ccp.Window)
			for k, w := range in.touched {
				in.windows[k] = w
			}
		}
		in.windows[key] = w
	}
	fresh := w.Note(m.ID.Counter)
	in.touched[key] = w
	if fresh {
		in.fresh = append(in.fresh, m)
	}
	return nil
}

// commit stores what was collected and queues it for showing. It returns the
// cursor that may be acknowledged to the relay, and how many deliveries it
// covers. After an error the tables are forgotten: the store has the truth.
func (in *inbox) commit() (cursor uint64, deliveries int, err error) {
	if in.seen == 0 {
		return in.cursor, 0, nil
	}
	err = in.store.Arrive(Arrival{Messages: in.fresh, Windows: in.touched, Cursor: in.cursor})
	if err != nil {
		in.discard()
		return 0, 0, err
	}
	if len(in.fresh) > 0 {
		in.offer(in.fresh)
	}
	deliveries, in.seen = in.seen, 0
	clear(in.fresh)
	in.fresh = in.fresh[:0]
	clear(in.touched)
	return in.cursor, deliveries, nil
}

// discard forgets what a broken connection collected and did not store.
func (in *inbox) discard() {
	in.fresh, in.seen = nil, 0
	clear(in.touched)
	clear(in.windows)
	if st, err := in.store.State(); err == nil {
		in.cursor = st.Cursor
	}
}

func (in *inbox) offer(ms []Message) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.unread || len(in.ready)+len(ms) > showAhead {
		in.unread = true // order: what follows is read from the store as well
	} else {
		in.ready = append(in.ready, ms...)
	}
	in.wake.Signal()
}

// ephemeral shows a message that was never stored.
func (in *inbox) ephemeral(m Message) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.ready) < showAhead {
		in.ready = append(in.ready, m)
		in.wake.Signal()
	}
}

// show runs the handler, one message after the other.
func (in *inbox) show() {
	defer close(in.stopped)
	var batch []Message
	for {
		in.mu.Lock()
		for len(in.ready) == 0 && !in.unread && !in.closed {
			in.wake.Wait()
		}
		if in.closed {
			in.mu.Unlock()
			return
		}
		batch = append(batch[:0], in.ready...)
		clear(in.ready)
		in.ready = in.ready[:0]
		fromStore := len(batch) == 0
		in.mu.Unlock()

		if fromStore {
			var err error
			if batch, err = in.store.Inbox(256); err != nil {
				in.fail(err)
				return
			}
			if len(batch) == 0 {
				in.mu.Lock()
				// Nothing can have been stored unseen between: offer sets unread
				// again under the lock, after its message is in the store.
				more, err := in.store.Inbox(1)
				in.unread = err == nil && len(more) > 0
				in.mu.Unlock()
				continue
			}
		}
		if !in.each(batch) {
			return
		}
	}
}

func (in *inbox) each(batch []Message) bool {
	for i := range batch {
		in.mu.Lock()
		closed := in.closed
		in.mu.Unlock()
		if closed {
			return false
		}
		if err := in.handle(batch[i]); err != nil {
			return false // it stays in the store, with all that follow
		}
		if batch[i].Ephemeral {
			continue
		}
		if err := in.store.Shown([]uint64{batch[i].Position}); err != nil {
			in.fail(err)
			return false
		}
	}
	return true
}

func (in *inbox) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.failed = err
}

func (in *inbox) err() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.failed
}

// close ends the showing after the handler's present call.
func (in *inbox) close() {
	in.mu.Lock()
	in.closed = true
	in.wake.Signal()
	in.mu.Unlock()
	<-in.stopped
}

func unixMilli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
