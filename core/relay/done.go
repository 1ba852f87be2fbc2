package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// handleDone takes a client's word for what it has stored: everything up to the
// cursor and the ranges, of what this connection delivered. One that covers nothing new
// while rows wait says that the device lives and does not take them now.
func (l *Link) handleDone(payload []byte) error {
	if !l.ack {
		return fmt.Errorf("%w: done without ack", ErrFatal)
	}
	var d ccp.Done
	if err := d.Parse(payload); err != nil {
		return fmt.Errorf("%w: %w", ErrFatal, err)
	}
	o := &l.out
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.ring.waiting
	l.acknowledged(0, d.Cursor)
	for _, r := range d.Ranges {
		l.acknowledged(r[0], r[1])
	}
	o.lives = o.lives || before > 0 && o.ring.waiting == before
	l.resume()
	return nil
}

// Alive says for a peer without ack that everything up to written has arrived:
// the next inbound byte, a clean close or an empty send queue prove it.
func (l *Link) Alive(written uint64) {
	if l.ack {
		return
	}
	o := &l.out
	o.mu.Lock()
	l.acknowledged(0, written)
	l.resume()
	o.mu.Unlock()
}

// acknowledged deletes the rows from..to as far as they were pushed to this
// session. mu is held.
func (l *Link) acknowledged(from, to uint64) {
	o := &l.out
	to = min(to, o.pushed)
	first, last, n := o.ring.done(from, to)
	if n == 0 {
		return
	}
	if o.alone != 0 && o.alone >= first && o.alone <= last {
		o.alone = 0
		if o.timer != nil {
			o.timer.Stop()
		}
	}
	if from == 0 && len(o.held) == 0 {
		l.h.doner.cursor(l.device, last)
		return
	}
	// Rows that this connection passed over lie between and must stay.
	start := first
	for _, pos := range o.held {
		if pos < start || pos > last {
			continue
		}
		if pos > start {
			l.h.doner.ranges(l.device, start, pos-1)
		}
		start = pos + 1
	}
	if start <= last {
		l.h.doner.ranges(l.device, start, last)
	}
}

// doner deletes acknowledged rows, gathered for DoneDelay. Deletions need not be
// durable: a row that comes back is delivered again and recognised.
type doner struct {
	h    *Hub
	mu   sync.Mutex
	m    map[string]*storage.Done
	wake chan struct{}
}

const doneBatch = 256

func (d *doner) entry(device string) *storage.Done {
	e := d.m[device]
	if e == nil {
		if len(d.m) == 0 {
			select {
			case d.wake <- struct{}{}:
			default:
			}
		}
		e = &storage.Done{Queue: device}
		d.m[device] = e
	}
	return e
}

func (d *doner) cursor(device string, pos uint64) {
	d.mu.Lock()
	e := d.entry(device)
	e.Cursor = max(e.Cursor, pos)
	d.mu.Unlock()
}

func (d *doner) ranges(device string, from, to uint64) {
	d.mu.Lock()
	e := d.entry(device)
	if n := len(e.Ranges); n > 0 && e.Ranges[n-1][1]+1 == from {
		e.Ranges[n-1][1] = to
	} else {
		e.Ranges = append(e.Ranges, [2]uint64{from, to})
	}
	d.mu.Unlock()
}

// flush deletes one device's acknowledged rows now.
func (d *doner) flush(ctx context.Context, device string) {
	d.mu.Lock()
	e := d.m[device]
	delete(d.m, device)
	d.mu.Unlock()
	if e != nil {
		d.send(ctx, []storage.Done{*e})
	}
}

func (d *doner) run(ctx context.Context) {
	for {
		select {
		case <-d.wake:
		case <-ctx.Done():
			d.all(context.WithoutCancel(ctx))
			return
		}
		d.h.sleep(ctx, d.h.opt.Limits.DoneDelay)
		if !d.all(ctx) {
			d.h.sleep(ctx, retryMost/2+rand.N(retryMost))
		}
	}
}

// all deletes what has gathered; false: the store failed and it is kept.
func (d *doner) all(ctx context.Context) bool {
	d.mu.Lock()
	batch := make([]storage.Done, 0, len(d.m))
	for _, e := range d.m {
		batch = append(batch, *e)
	}
	clear(d.m)
	d.mu.Unlock()
	ok := true
	for part := range slices.Chunk(batch, doneBatch) {
		ok = d.send(ctx, part) && ok
	}
	return ok
}

func (d *doner) send(ctx context.Context, batch []storage.Done) bool {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendLimit)
	defer cancel()
	err := d.h.queues.Done(call, batch)
	if err == nil {
		return true
	}
	d.h.log.Warn("done", "queues", len(batch), "error", err)
	for _, e := range batch {
		if e.Cursor > 0 {
			d.cursor(e.Queue, e.Cursor)
		}
		for _, r := range e.Ranges {
			d.ranges(e.Queue, r[0], r[1])
		}
	}
	return false
}
