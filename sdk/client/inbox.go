package client

import (
	"sync"
	"sync/atomic"

	"github.com/commucat/commucat/sdk/ccp"
)

// Limits of the inbox.
const (
	// MaxInbox and MaxInboxBytes are how much the store holds that the handler has
	// not taken; what is beyond stays at the relay.
	MaxInbox      = 10000
	MaxInboxBytes = 64 << 20

	// showAhead and showBytes are how much of it waits in memory for the handler;
	// more stays in the store alone.
	showAhead = 1024
	showBytes = 1 << 20
	// windowCache is how many duplicate tables (520 bytes each) are held, and
	// nameCache how many names.
	windowCache = 1024
	nameCache   = 1024
	// messageCost is what a message counts besides its body, bytes.
	messageCost = 256
)

// inbox stores what arrives and shows it, once and in order.
type inbox struct {
	store  Store
	handle func(Message) error
	onFail func(error) // the store failed
	onRoom func()      // there is room again for what was left at the relay

	// The collecting side belongs to the reader of the present connection.
	fresh   []Message
	windows map[WindowKey]*ccp.Window
	touched map[WindowKey]*ccp.Window
	names   map[string]string
	seen    int    // deliveries since the last store
	cursor  uint64 // highest position stored or about to be

	// storing is held while messages are stored and offered, and while they are
	// read back, so that each takes one way only. Taken before mu.
	storing sync.Mutex

	quit atomic.Bool

	mu         sync.Mutex
	wake       *sync.Cond
	ready      []Message
	readyBytes int
	unread     bool // the store holds messages that are not in ready
	held       int  // messages in the store
	heldBytes  int64
	starving   bool // deliveries were left at the relay
	started    bool
	stopped    chan struct{}
	failed     error
}

// Sizer may be implemented by a Store: how many messages it holds that were not
// shown, and their size, roughly.
type Sizer interface {
	Unshown() (messages int, bytes int64, err error)
}

func openInbox(store Store, cursor uint64, handle func(Message) error) (*inbox, error) {
	in := &inbox{
		store: store, handle: handle, cursor: cursor, unread: true,
		windows: make(map[WindowKey]*ccp.Window), touched: make(map[WindowKey]*ccp.Window),
		names: make(map[string]string), stopped: make(chan struct{}),
	}
	in.wake = sync.NewCond(&in.mu)
	if s, ok := store.(Sizer); ok {
		var err error
		if in.held, in.heldBytes, err = s.Unshown(); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// name is the string of b, one copy for all messages.
func (in *inbox) name(b []byte) string {
	if s, ok := in.names[string(b)]; ok {
		return s
	}
	if len(in.names) >= nameCache {
		clear(in.names)
	}
	s := string(b)
	in.names[s] = s
	return s
}

// crowded says that no further delivery may be stored; it is remembered, and
// onRoom called when half of the room is free.
func (in *inbox) crowded() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.held+len(in.fresh) < MaxInbox && in.heldBytes < MaxInboxBytes {
		return false
	}
	in.starving = true
	return true
}

// skip notes a delivery of which nothing is kept.
func (in *inbox) skip(position uint64) {
	in.seen++
	in.cursor = max(in.cursor, position)
}

// duplicate says that the delivery was stored before, and notes its position
// then. It spares the copy of the body where the table is at hand.
func (in *inbox) duplicate(d *ccp.Deliver) bool {
	w := in.windows[WindowKey{Device: in.name(d.Device), Log: d.ID.Log}]
	if w == nil || !w.Done(d.ID.Counter) {
		return false
	}
	in.skip(d.Position)
	return true
}

// collect takes one delivery; what was collected is stored by commit.
func (in *inbox) collect(d *ccp.Deliver, m Message) error {
	in.skip(d.Position)
	key := WindowKey{Device: m.Device, Log: m.ID.Log}
	w := in.windows[key]
	if w == nil {
		var err error
		if w, err = in.store.Window(key); err != nil {
			return err
		}
		if len(in.windows) >= windowCache {
			clear(in.windows)
			for k, t := range in.touched {
				in.windows[k] = t
			}
		}
		in.windows[key] = w
	}
	if w.Note(m.ID.Counter) {
		in.touched[key] = w
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
	in.storing.Lock()
	defer in.storing.Unlock()
	if err := in.store.Arrive(Arrival{Messages: in.fresh, Windows: in.touched, Cursor: in.cursor}); err != nil {
		in.discard()
		return 0, 0, err
	}
	in.offer(in.fresh)
	deliveries, in.seen = in.seen, 0
	clear(in.fresh)
	in.fresh = in.fresh[:0]
	if cap(in.fresh) > showAhead {
		in.fresh = nil
	}
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

func cost(m *Message) int64 { return int64(len(m.Body)) + messageCost }

// offer queues stored messages for the handler; storing is held.
func (in *inbox) offer(ms []Message) {
	if len(ms) == 0 {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	bytes := 0
	for i := range ms {
		bytes += int(cost(&ms[i]))
	}
	in.held += len(ms)
	in.heldBytes += int64(bytes)
	if in.unread || len(in.ready)+len(ms) > showAhead || in.readyBytes+bytes > showBytes {
		in.unread = true // order: what follows is read from the store as well
	} else {
		in.ready = append(in.ready, ms...)
		in.readyBytes += bytes
	}
	in.wake.Signal()
}

// ephemeral shows a message that was never stored, if the handler keeps up.
func (in *inbox) ephemeral(m Message) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if n := int(cost(&m)); in.handle != nil && len(in.ready) < showAhead && in.readyBytes+n <= showBytes {
		in.ready = append(in.ready, m)
		in.readyBytes += n
		in.wake.Signal()
	}
}
