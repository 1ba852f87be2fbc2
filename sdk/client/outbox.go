package client

import (
	"context"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// Limits of the outbox.
const (
	MaxOutbox      = 16384
	MaxOutboxBytes = 64 << 20
	// MaxBody is the largest message body.
	MaxBody = ccp.MaxBody - 32<<10
	// MaxRecipients is how many ids one message may name.
	MaxRecipients = 64
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

// Ticket follows one message from the outbox to the relay's acknowledgement.
type Ticket struct {
	box  *outbox
	done chan struct{}
	// written before done is closed
	res Result
	err error
}

// Wait returns the relay's answer, or the error of ctx; the message stays in the
// outbox then. A message refused as a whole gives an *Error of kind Refused.
func (t *Ticket) Wait(ctx context.Context) (Result, error) {
	select {
	case <-t.done:
		return t.res, t.err
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	}
}

// Done is closed when Wait would not block.
func (t *Ticket) Done() <-chan struct{} { return t.done }

// item is one pending message.
type item struct {
	Outgoing
	ticket  *Ticket // nil for those found in the store
	refused []Refusal
	done    bool
}

// outbox holds the pending messages of one device in counter order, and how far
// the present connection has sent them.
type outbox struct {
	store Store
	wake  func() // tells the writer that there is something to send

	// numbering is held while counters are given out and stored; taken before mu.
	numbering sync.Mutex

	mu       sync.Mutex
	log      [8]byte
	items    []*item // contiguous counters from base
	base     uint64
	sent     int // items before this index were sent on this connection
	inflight int // sent and not done
	pending  int // not done
	bytes    int
	holdTill time.Time // the relay asked for a pause
	closed   error

	forming    *formation
	committing bool

	acked   []uint64 // to be deleted from the store
	deleter bool
	idle    sync.WaitGroup // deleter and committer
}

// formation is a group of Sends that will be one transaction.
type formation struct {
	items []*item
	done  chan struct{}
	err   error
}

func openOutbox(store Store, wake func()) (*outbox, error) {
	st, err := store.State()
	if err != nil {
		return nil, err
	}
	o := &outbox{store: store, wake: wake, log: st.Log, base: st.Next}
	return o, o.reload()
}

// reload takes the pending messages from the store, keeping the tickets of
// those that are already here (in order).
func (o *outbox) reload() error {
	stored, err := o.store.Outbox()
	if err != nil {
		return err
	}
	st, err := o.store.State()
	if err != nil {
		return err
	}
	var old []*item
	for _, it := range o.items {
		if !it.done {
			old = append(old, it)
		}
	}
	o.log, o.items, o.base, o.bytes, o.pending = st.Log, nil, st.Next, 0, 0
	for _, s := range stored {
		if len(o.items) == 0 {
			o.base = s.Counter
		}
		it := &item{Outgoing: s}
		if len(old) > 0 && len(stored) == len(old) {
			it.ticket, old[0].Outgoing = old[0].ticket, s
			old, stored = old[1:], stored[1:]
		}
		for o.base+uint64(len(o.items)) < s.Counter { // acknowledged ones between
			o.items = append(o.items, &item{done: true})
		}
		o.items = append(o.items, it)
		o.pending++
		o.bytes += len(s.Body)
	}
	for next := st.Next; o.base+uint64(len(o.items)) < next; {
		o.items = append(o.items, &item{done: true})
	}
	o.sent, o.inflight = 0, 0
	return nil
}

// put makes m durable in the store, together with what other callers put at the
// same time, and gives the ticket that follows it.
func (o *outbox) put(m Outgoing) (*Ticket, error) {
	it := &item{Outgoing: m, ticket: &Ticket{box: o, done: make(chan struct{})}}
	o.mu.Lock()
	if o.closed != nil {
		o.mu.Unlock()
		return nil, o.closed
	}
	if o.pending >= MaxOutbox || o.bytes+len(m.Body) > MaxOutboxBytes {
		o.mu.Unlock()
		return nil, &Error{Kind: Full, Text: "the outbox is full: the relay has not acknowledged earlier messages yet"}
	}
	o.pending++
	o.bytes += len(m.Body)
	if o.forming == nil {
		o.forming = &formation{done: make(chan struct{})}
	}
	f := o.forming
	f.items = append(f.items, it)
	lead := !o.committing
	if lead {
		o.committing = true
		o.idle.Add(1)
	}
	o.mu.Unlock()
	if lead {
		o.commit()
	}
	<-f.done
	return it.ticket, f.err
}

// commit stores the group that has formed; what forms meanwhile is left to a
// goroutine, so that no caller works for others without end.
func (o *outbox) commit() {
	o.numbering.Lock()
	o.mu.Lock()
	f := o.forming
	o.forming = nil
	if f == nil {
		o.committing = false
		o.mu.Unlock()
		o.numbering.Unlock()
		o.idle.Done()
		return
	}
	next := o.base + uint64(len(o.items))
	batch := make([]Outgoing, len(f.items))
	for i, it := range f.items {
		it.Counter = next + uint64(i)
		batch[i] = it.Outgoing
	}
	o.mu.Unlock()

	f.err = o.store.PutOutbox(batch)

	o.mu.Lock()
	if f.err == nil {
		o.items = append(o.items, f.items...)
	} else {
		for _, it := range f.items {
			o.pending--
			o.bytes -= len(it.Body)
		}
	}
	more := o.forming != nil
	if !more {
		o.committing = false
	}
	o.mu.Unlock()
	o.numbering.Unlock()
	close(f.done)
	if f.err == nil {
		o.wake()
	}
	if more {
		go o.commit()
		return
	}
	o.idle.Done()
}

// next gives messages to send on this connection, in order: at most limit bytes
// of body (one larger message alone), and only inside the window.
func (o *outbox) next(dst []*item, window, limit int, now time.Time) []*item {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.holdTill.After(now) {
		return dst
	}
	for o.sent < len(o.items) && o.inflight < window {
		it := o.items[o.sent]
		if it.done {
			o.sent++
			continue
		}
		if limit -= len(it.Body); limit < 0 && len(dst) > 0 {
			break
		}
		dst = append(dst, it)
		o.sent++
		o.inflight++
	}
	return dst
}

// hold says until when the relay wants no message.
func (o *outbox) hold() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.holdTill
}

// waiting says how many sent messages have no answer.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.inflight
}

// begin starts a connection: everything not acknowledged will be sent again.
func (o *outbox) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent, o.inflight, o.holdTill = 0, 0, time.Time{}
}

func (o *outbox) find(counter uint64) (int, *item) {
	if counter < o.base || counter-o.base >= uint64(len(o.items)) {
		return 0, nil
	}
	i := int(counter - o.base)
	return i, o.items[i]
}

// ack marks the counters from..to as done.
func (o *outbox) ack(from, to uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if from < o.base {
		from = o.base
	}
	if end := o.base + uint64(len(o.items)); to >= end {
		to = end - 1
	}
	for c := from; c <= to && c >= from; c++ {
		if i, it := o.find(c); it != nil && !it.done {
			o.finish(i, it, nil)
		}
	}
	o.trim()
	o.clean()
}

// refuse notes a device that will not get the message; the counter itself is
// acknowledged separately.
func (o *outbox) refuse(counter uint64, r Refusal) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, it := o.find(counter); it != nil && !it.done && len(it.refused) < 4096 {
		it.refused = append(it.refused, r)
	}
}

// fail ends one message with the relay's code.
func (o *outbox) fail(counter uint64, code string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if i, it := o.find(counter); it != nil && !it.done {
		o.finish(i, it, &Error{Kind: Refused, Code: code, Text: "the relay refused the message"})
	}
	o.trim()
	o.clean()
}

// rewind repeats from counter on, not before until.
func (o *outbox) rewind(counter uint64, until time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i, it := o.find(counter)
	if it == nil || i >= o.sent {
		return
	}
	for _, it := range o.items[i:o.sent] {
		if !it.done {
			o.inflight--
		}
	}
	o.sent, o.holdTill = i, until
}

// finish is called with mu held.
func (o *outbox) finish(i int, it *item, err error) {
	it.done = true
	o.pending--
	o.bytes -= len(it.Body)
	if i < o.sent {
		o.inflight--
	}
	o.acked = append(o.acked, it.Counter)
	if t := it.ticket; t != nil {
		t.res = Result{ID: ccp.MessageID{Log: o.log, Counter: it.Counter}, Refused: it.refused}
		t.err = err
		close(t.done)
	}
	it.ticket, it.Body, it.refused = nil, nil, nil
}

// trim drops what is done at the front; called with mu held.
func (o *outbox) trim() {
	n := 0
	for n < len(o.items) && o.items[n].done {
		o.items[n] = nil
		n++
	}
	o.items = o.items[n:]
	o.base += uint64(n)
	o.sent = max(0, o.sent-n)
}

// clean deletes acknowledged messages from the store, in the background and in
// groups; called with mu held.
func (o *outbox) clean() {
	if o.deleter || len(o.acked) == 0 {
		return
	}
	o.deleter = true
	o.idle.Add(1)
	go func() {
		defer o.idle.Done()
		for {
			o.mu.Lock()
			acked := o.acked
			o.acked = nil
			if len(acked) == 0 {
				o.deleter = false
				o.mu.Unlock()
				return
			}
			o.mu.Unlock()
			if err := o.store.DeleteOutbox(acked); err != nil {
				// They stay in the store: sent again after a restart, and known to
				// the relay by their ids.
				continue
			}
		}
	}()
}

// restart gives the pending messages new ids under a new log.
func (o *outbox) restart(log [8]byte) error {
	o.numbering.Lock()
	defer o.numbering.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.store.Restart(log); err != nil {
		return err
	}
	return o.reload()
}

// high is the highest counter given out, and the log.
func (o *outbox) high() (log [8]byte, counter uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.log, o.base + uint64(len(o.items)) - 1
}

// close ends waiting callers; the messages stay in the store.
func (o *outbox) close(err error) {
	o.mu.Lock()
	o.closed = err
	for _, it := range o.items {
		if it != nil && it.ticket != nil && !it.done {
			it.ticket.err = err
			close(it.ticket.done)
			it.ticket = nil
		}
	}
	o.mu.Unlock()
	o.idle.Wait()
}
