package client

import "errors"

// formation is a group of Sends that will be one transaction.
type formation struct {
	items []*item
	done  chan struct{} // made by the first that waits beside the leader
	err   error
}

// put makes a message durable in the store, together with what other callers put
// at the same time, and gives the ticket that follows it.
func (o *outbox) put(it *item) (*Ticket, error) {
	it.ticket.box = o
	o.mu.Lock()
	if o.closed != nil {
		o.mu.Unlock()
		return nil, o.closed
	}
	if len(o.acked) > maxUndeleted {
		o.clean(true)
		o.mu.Unlock()
		return nil, storeFailed(errors.New("acknowledged messages cannot be deleted"))
	}
	if o.pending >= MaxOutbox || o.bytes+len(it.payload) > MaxOutboxBytes {
		o.mu.Unlock()
		return nil, &Error{Kind: Full, Text: "the outbox is full: the relay has not acknowledged earlier messages yet; connect, or wait"}
	}
	o.pending++
	o.bytes += len(it.payload)
	f := o.forming
	if f == nil {
		if f, o.spare = o.spare, nil; f == nil {
			f = new(formation)
		}
		o.forming = f
	}
	f.items = append(f.items, it)
	lead := !o.committing
	if lead {
		o.committing = true
		o.idle.Add(1)
	} else if f.done == nil {
		f.done = make(chan struct{})
	}
	wait := f.done
	o.mu.Unlock()
	var err error
	if lead {
		err = o.commit()
	} else {
		<-wait
		err = f.err
	}
	if err != nil {
		return nil, storeFailed(err)
	}
	return &it.ticket, nil
}

// commit stores the group that has formed, the caller's message in it; what forms
// meanwhile is left to a goroutine, so that no caller works for others without
// end.
func (o *outbox) commit() error {
	o.numbering.Lock()
	o.mu.Lock()
	f := o.forming
	o.forming = nil
	next := o.base + uint64(len(o.items))
	o.batch = o.batch[:0]
	for i, it := range f.items {
		it.Counter = next + uint64(i)
		o.batch = append(o.batch, it.Outgoing)
	}
	o.mu.Unlock()

	err := o.store.PutOutbox(o.batch)
	clear(o.batch)

	o.mu.Lock()
	f.err = err
	for _, it := range f.items {
		if err == nil {
			o.items = append(o.items, it)
		} else {
			o.pending--
			o.bytes -= len(it.payload)
		}
		if o.closed != nil {
			it.ticket.finish(Result{}, o.closed)
		}
	}
	more := o.forming != nil
	if !more {
		o.committing = false
	}
	if f.done != nil {
		close(f.done)
	} else { // nobody else looks at it
		clear(f.items)
		o.spare = f
		f.items, f.err = f.items[:0], nil
	}
	o.mu.Unlock()
	o.numbering.Unlock()
	if err == nil {
		o.wake()
	}
	if more {
		go func() { _ = o.commit() }()
		return err
	}
	o.idle.Done()
	return err
}

const (
	// cleanEvery is how many acknowledged messages are deleted at once; fewer go
	// when nothing is pending.
	cleanEvery = 64
)

// clean deletes acknowledged messages from the store, in the background and in
// groups; called with mu held.
func (o *outbox) clean(now bool) {
	if o.cleaner || len(o.acked) == 0 || !now && o.pending > 0 && len(o.acked) < cleanEvery {
		return
	}
	o.cleaner = true
	o.idle.Add(1)
	go func() {
		defer o.idle.Done()
		if err := o.sweep(); err != nil {
			// They stay in the store: sent again after a restart, and known to the
			// relay by their ids.
			o.note.Warn("acknowledged messages could not be deleted from the outbox", "error", err)
		}
	}()
}

// sweep deletes until nothing waits for it.
func (o *outbox) sweep() error {
	o.deleting.Lock()
	defer o.deleting.Unlock()
	var spare []uint64
	for {
		o.mu.Lock()
		acked := o.acked
		o.acked = spare[:0]
		if len(acked) == 0 {
			o.cleaner = false
			o.mu.Unlock()
			return nil
		}
		o.mu.Unlock()
		if err := o.store.DeleteOutbox(acked); err != nil {
			o.mu.Lock()
			o.cleaner = false
			if len(o.acked) > 0 {
				acked = append(acked, o.acked...)
			}
			o.acked = acked // put bounds them
			o.mu.Unlock()
			return err
		}
		spare = acked
	}
}

// restart gives the pending messages new ids under a new log. Nothing may be in
// flight.
func (o *outbox) restart(log [8]byte) error {
	o.numbering.Lock()
	defer o.numbering.Unlock()
	if err := o.sweep(); err != nil {
		return err
	}
	o.deleting.Lock()
	defer o.deleting.Unlock()
	if err := o.store.Restart(log); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var left []*item
	for _, it := range o.items {
		if it.done {
			continue
		}
		left = append(left, it)
		it.Counter = uint64(len(left))
		it.renewed = it.renewed || it.parked
		o.refusals -= len(it.refused)
		it.parked, it.refused = false, nil
	}
	o.log, o.items, o.base, o.offered = log, left, 1, 0
	o.sent, o.inflight, o.flying, o.asked, o.renew = 0, 0, 0, 0, false
	return nil
}
