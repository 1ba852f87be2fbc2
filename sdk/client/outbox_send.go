package client

import (
	"encoding/binary"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// Bounds of the pause that a relay may ask for.
const (
	minHold = 50 * time.Millisecond
	maxHold = time.Minute
)

// gather appends Send frames in order: at most limit bytes (one larger message
// alone), and only inside the window. n is how many.
func (o *outbox) gather(dst []byte, window, limit int, now time.Time, seq *uint32) (out []byte, n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.renew || o.holdTill.After(now) {
		return dst, 0, nil
	}
	for o.sent < len(o.items) && o.sent < maxSpan && o.inflight < window {
		it := o.items[o.sent]
		if it.done {
			o.sent++
			continue
		}
		if limit -= len(it.payload); limit < 0 && n > 0 {
			break
		}
		if err := nextSequence(seq); err != nil {
			return dst, n, err
		}
		if dst, err = ccp.AppendHeader(dst, ccp.TypeSend, it.Channel, *seq, len(it.payload)); err != nil {
			return dst, n, err
		}
		at := len(dst)
		dst = append(dst, it.payload...)
		copy(dst[at+sendLog:], o.log[:])
		binary.BigEndian.PutUint64(dst[at+sendCounter:], it.Counter)
		if o.inflight == 0 {
			o.asked = now.UnixNano()
		}
		o.sent++
		o.inflight++
		o.flying += len(it.payload)
		o.offered = max(o.offered, it.Counter)
		n++
	}
	return dst, n, nil
}

// wrote tells that what was gathered has left: the wait for an answer begins.
func (o *outbox) wrote(now time.Time) {
	o.mu.Lock()
	o.asked = now.UnixNano()
	o.mu.Unlock()
}

// hold says until when the relay wants no message.
func (o *outbox) hold() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.holdTill
}

// unanswered says since when an answer is due (0: none is), and for how many
// bytes.
func (o *outbox) unanswered() (since int64, bytes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.inflight == 0 {
		return 0, 0
	}
	return o.asked, o.flying
}

// spent says that the log must be replaced.
func (o *outbox) spent() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.renew
}

// begin starts a connection: everything not acknowledged will be sent again.
func (o *outbox) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent, o.inflight, o.flying, o.asked, o.holdTill = 0, 0, 0, 0, time.Time{}
	for _, it := range o.items {
		it.refused = nil
	}
	o.refusals = 0
}

// settle marks what the relay has stored as done. false: it knows counters that
// were never sent from here.
func (o *outbox) settle(log [8]byte, done [][2]uint64, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if log != o.log {
		return true
	}
	for _, r := range done {
		if r[1] > o.offered {
			return false
		}
	}
	for _, r := range done {
		o.ack(r[0], r[1])
	}
	o.answered(now)
	return true
}

// acknowledge takes an Ack and says whether there is more to send.
func (o *outbox) acknowledge(a *ccp.SendAck, now time.Time) (more bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if a.Log != o.log {
		return false
	}
	for _, r := range a.Refused {
		_, it := o.find(r.Counter)
		if it != nil && !it.done && r.Counter <= o.offered && len(it.refused) < maxRefused && o.refusals < maxRefusals {
			it.refused = append(it.refused, Refusal{Device: printable(string(r.Device)), Code: printable(string(r.Error))})
			o.refusals++
		}
	}
	for _, r := range a.Done {
		o.ack(r[0], r[1])
	}
	o.answered(now)
	return o.sent < len(o.items)
}

// refused takes an error about one message.
func (o *outbox) refused(e ccp.ErrorBody, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i, it := o.find(e.ID.Counter)
	if e.ID.Log != o.log || it == nil || it.done || e.ID.Counter > o.offered {
		return
	}
	switch {
	case e.Error == ccp.CodeUnavailable:
		pause := time.Duration(min(e.RetryMS, uint32(maxHold/time.Millisecond))) * time.Millisecond
		o.rewind(i, now.Add(max(pause, minHold)))
	case e.Error == ccp.CodeBadID && !it.renewed:
		// Begins a new log when the rest is answered, so that nothing which the
		// relay has already is sent under a second id.
		o.renew = true
		if i < o.sent && !it.parked {
			o.land(it)
		}
		it.parked = true
	default:
		o.finish(i, it, refusedMessage(e.Error))
	}
	o.answered(now)
}

// rewind repeats from the item at i on, not before until; mu is held.
func (o *outbox) rewind(i int, until time.Time) {
	if i >= o.sent {
		return
	}
	for _, it := range o.items[i:o.sent] {
		if !it.done && !it.parked {
			o.land(it)
		}
	}
	o.sent, o.holdTill = i, until
}

// land counts one message less in flight; mu is held.
func (o *outbox) land(it *item) {
	o.inflight--
	o.flying -= len(it.payload)
}

// ack marks the counters from..to as done, as far as they were sent; mu is held.
func (o *outbox) ack(from, to uint64) {
	from = max(from, o.base)
	to = min(to, o.offered, o.base+uint64(len(o.items))-1)
	for c := from; c <= to; c++ {
		if i, it := o.find(c); it != nil && !it.done {
			o.finish(i, it, nil)
		}
	}
}

// finish ends one message; mu is held.
func (o *outbox) finish(i int, it *item, err error) {
	it.done = true
	o.pending--
	o.bytes -= len(it.payload)
	if i < o.sent && !it.parked {
		o.land(it)
	}
	o.refusals -= len(it.refused)
	o.acked = append(o.acked, it.Counter)
	it.ticket.finish(Result{ID: ccp.MessageID{Log: o.log, Counter: it.Counter}, Refused: it.refused}, err)
	it.payload, it.Body, it.To, it.refused = nil, nil, nil, nil
}

// answered drops what is done at the front and begins the wait anew; mu is held.
func (o *outbox) answered(now time.Time) {
	o.asked = now.UnixNano()
	n := 0
	for n < len(o.items) && o.items[n].done {
		o.items[n] = nil
		n++
	}
	o.items = o.items[n:]
	o.base += uint64(n)
	o.sent = max(0, o.sent-n)
	o.clean(false)
}
