package client

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// Limits of the outbox.
const (
	MaxOutbox      = 16384
	MaxOutboxBytes = 64 << 20
	// maxSpan is how far ahead of the oldest message without an answer another may
	// be sent. Far below the duplicate tables' 4,096: what falls out of a table
	// counts as a duplicate.
	maxSpan = 2048
	// maxRefused bounds the refusals noted for one message, maxRefusals those of all
	// that have no answer yet.
	maxRefused  = 4096
	maxRefusals = 65536
	// maxUndeleted is how many acknowledged messages may wait for a store that fails to
	// delete them before Send fails as well.
	maxUndeleted = MaxOutbox
)

// Refusal names a recipient device that will never get the message.
type Refusal struct {
	Device string `json:"device"`
	Code   string `json:"error"`
}

// Result is the relay's answer to one message.
type Result struct {
	ID ccp.MessageID
	// Refused lists the devices for which the message was refused for good; for
	// all others it is on stable storage.
	Refused []Refusal
}

// Ticket follows one message from the outbox to the relay's acknowledgement. Its
// methods may be called concurrently.
type Ticket struct {
	box *outbox
	// guarded by box.mu
	done chan struct{} // made when somebody waits
	over bool
	res  Result
	err  error
}

// Wait returns the relay's answer, or the error of ctx; the message stays in the
// outbox then. A message refused as a whole gives an *Error of kind Refused, a
// closed client ErrClosed.
func (t *Ticket) Wait(ctx context.Context) (Result, error) {
	select {
	case <-t.Done():
	default:
		select {
		case <-t.Done():
		case <-ctx.Done():
			return Result{}, context.Cause(ctx)
		}
	}
	t.box.mu.Lock()
	defer t.box.mu.Unlock()
	return t.res, t.err
}

// Done is closed when Wait would not block.
func (t *Ticket) Done() <-chan struct{} {
	t.box.mu.Lock()
	defer t.box.mu.Unlock()
	if t.done == nil {
		t.done = make(chan struct{})
		if t.over {
			close(t.done)
		}
	}
	return t.done
}

// finish is called with box.mu held.
func (t *Ticket) finish(res Result, err error) {
	if t.over {
		return
	}
	t.res, t.err, t.over = res, err, true
	if t.done != nil {
		close(t.done)
	}
}

// item is one pending message.
type item struct {
	Outgoing
	ticket  Ticket
	payload []byte // of the Send, its message id not yet filled in
	refused []Refusal
	one     [1]string // room for To
	done    bool
	parked  bool // the relay called its id bad
	renewed bool // and has it under a new one
}

// outbox holds the pending messages of one device in counter order, and how far
// the present connection has sent them.
type outbox struct {
	store Store
	wake  func() // tells the writer that there is something to send
	note  *slog.Logger

	// numbering is held while counters are given out and stored, deleting while
	// counters are deleted from the store; both are taken before mu.
	numbering sync.Mutex
	deleting  sync.Mutex
	batch     []Outgoing // numbering's

	mu       sync.Mutex
	log      [8]byte
	items    []*item // contiguous counters from base
	base     uint64
	sent     int    // items before this index were sent on this connection
	offered  uint64 // highest counter that may ever have been sent
	inflight int    // sent and not answered
	flying   int    // their bytes, at least one each
	asked    int64  // unix nanoseconds since when an answer is due
	pending  int    // not done
	refusals int    // in items
	bytes    int
	renew    bool      // a new log must begin
	holdTill time.Time // the relay asked for a pause
	closed   error

	forming    *formation
	spare      *formation
	committing bool

	acked   []uint64 // to be deleted from the store
	cleaner bool
	idle    sync.WaitGroup // cleaner and committer
}

func openOutbox(store Store, wake func(), log *slog.Logger) (*outbox, error) {
	st, err := store.State()
	if err != nil {
		return nil, err
	}
	stored, err := store.Outbox()
	if err != nil {
		return nil, err
	}
	o := &outbox{store: store, wake: wake, note: log, log: st.Log, base: st.Next, offered: st.Next - 1}
	for i, out := range stored {
		it := &item{Outgoing: out}
		switch {
		case i > 0 && out.Counter <= stored[i-1].Counter || out.Counter >= st.Next || out.Counter == 0:
			return nil, invalid("the outbox is out of order at message %d", out.Counter)
		case st.Next-out.Counter > MaxOutbox+maxSpan+maxUndeleted+cleanEvery:
			return nil, invalid("the outbox has a gap behind message %d", out.Counter)
		}
		if err := it.encode(); err != nil {
			return nil, err
		}
		if len(o.items) == 0 {
			o.base = out.Counter
		}
		o.fill(out.Counter)
		it.ticket.box = o
		o.items = append(o.items, it)
		o.pending++
		o.bytes += len(it.payload)
	}
	if len(o.items) > 0 {
		o.fill(st.Next)
	}
	return o, nil
}

// fill puts acknowledged messages where the store has none before next.
func (o *outbox) fill(next uint64) {
	for o.base+uint64(len(o.items)) < next {
		o.items = append(o.items, &item{done: true})
	}
}

// open is the number of messages without an answer.
func (o *outbox) open() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pending
}

// high is the log and the highest counter given out.
func (o *outbox) high() (log [8]byte, counter uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.log, o.base + uint64(len(o.items)) - 1
}

func (o *outbox) find(counter uint64) (int, *item) {
	if counter < o.base || counter-o.base >= uint64(len(o.items)) {
		return 0, nil
	}
	i := int(counter - o.base)
	return i, o.items[i]
}

// close ends waiting callers; the messages stay in the store.
func (o *outbox) close(err error) {
	o.mu.Lock()
	if o.closed == nil {
		o.closed = err
	}
	for _, it := range o.items {
		if !it.done {
			it.ticket.finish(Result{}, o.closed)
		}
	}
	o.clean(true)
	o.mu.Unlock()
	o.idle.Wait()
}
