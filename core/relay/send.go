package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// handleSend takes a message of a peer with ack.
func (l *Link) handleSend(ctx context.Context, f ccp.Frame, io bool) error {
	s := &l.send
	if err := s.Parse(f.Payload); err != nil {
		var e *ccp.Error
		if errors.As(err, &e) && (e.Kind == ccp.BadKind || e.Kind == ccp.BadID || e.Kind == ccp.BodyLimit) {
			return refuse(e.Code(), e.Detail)
		}
		return fmt.Errorf("%w: %w", ErrFatal, err)
	}
	if err := s.CheckChannel(f.Channel); err != nil {
		return fmt.Errorf("%w: %w", ErrFatal, err)
	}
	now := l.h.now()
	epoch, drop, err := l.admit(s.ID, now)
	if drop || err != nil {
		return err
	}
	rt, err := l.routeFor(ctx, f.Channel, s.To, s.Flags&ccp.SendNoCopies == 0, io)
	if err != nil {
		return err
	}
	body := s.Body
	if s.Kind != ccp.TypeMsg {
		if body, err = l.inspect(f.Channel, s.Kind, body, rt); err != nil {
			return err
		}
	}
	if s.Kind.Media() || s.Flags&ccp.SendEphemeral != 0 {
		if err := l.broadcast(rt, s.Kind, f.Channel, s.ID, now, body); err != nil {
			return err
		}
		l.doneNow(s.ID, now)
		return nil
	}
	m := message{kind: s.Kind, channel: f.Channel, id: s.ID, epoch: epoch, ttl: time.Duration(s.TTL) * time.Second, body: body}
	return l.launch(&m, rt, now)
}

// admit applies the rules of a log: duplicates are acknowledged again, counters
// too far ahead are refused, and after a passing failure everything is dropped
// until the failed counter returns. A failure after this makes epoch an old one: asking
// for the route takes time in which an earlier message may fail.
func (l *Link) admit(id ccp.MessageID, now time.Time) (epoch uint32, drop bool, err error) {
	in := &l.in
	in.mu.Lock()
	o := l.outLog(id.Log, now)
	epoch = o.epoch.Load()
	if o.failed != 0 {
		if id.Counter != o.failed {
			in.mu.Unlock()
			return 0, true, nil
		}
		o.failed = 0
	}
	s := l.sender
	s.mu.Lock()
	win := &o.sent.win
	if win.High() == 0 && id.Counter > ccp.WindowSize {
		win.Note(id.Counter - 1) // a log that was forgotten goes on where it is
	}
	dup := win.Done(id.Counter)
	err = win.Check(id.Counter)
	s.mu.Unlock()
	if !dup {
		in.mu.Unlock()
		if err != nil {
			return 0, false, refuse(ccp.CodeBadID, "")
		}
		return epoch, false, nil
	}
	o.add(id.Counter)
	in.touched, o.dirty = true, true
	in.mu.Unlock()
	l.h.metrics.Duplicate()
	l.flushAcks()
	return 0, true, nil
}

// doneNow acknowledges a message of which nothing is stored.
func (l *Link) doneNow(id ccp.MessageID, now time.Time) {
	l.in.mu.Lock()
	o := l.outLog(id.Log, now)
	l.mark(o, id.Counter)
	o.add(id.Counter)
	l.in.touched, o.dirty = true, true
	l.in.mu.Unlock()
	l.flushAcks()
}

// mark notes a counter as done in the device's duplicate table.
func (l *Link) mark(o *outLog, counter uint64) {
	s := l.sender
	s.mu.Lock()
	_, _ = o.sent.win.Mark(counter) // too far ahead was refused before
	s.mu.Unlock()
	l.h.markLater(s)
}

// message is what launch needs of a message.
type message struct {
	kind    ccp.Type
	channel uint32
	id      ccp.MessageID
	epoch   uint32 // of the log, when it was admitted
	ttl     time.Duration
	body    []byte // copied
	plain   bool   // of an old peer: acknowledged by sequence
	seq     uint32
	extras  []ccp.Member
}

// launch puts one row per recipient into the lanes. It blocks while the session's
// window is full.
func (l *Link) launch(m *message, rt *route, now time.Time) error {
	h := l.h
	n := len(rt.to)
	if err := l.wait(len(m.body), n); err != nil {
		return err
	}
	life := h.opt.Limits.RelayTTL
	if m.ttl > 0 && m.ttl < life {
		life = m.ttl
	}
	f := newFlight()
	f.link, f.seq, f.extras, f.arrived = l, m.seq, m.extras, now
	h.metrics.FannedOut(n)
	f.env = envelope{
		kind: m.kind, channel: m.channel, time: now.UnixMilli(), id: m.id, device: l.device, user: l.user,
		body: append([]byte(nil), m.body...),
	}
	if m.channel == 0 {
		f.env.flags = FlagDirect
	}
	f.id = rowID(l.device, m.id)
	f.expires = now.Add(life)
	f.cost = n
	if !m.plain {
		l.in.mu.Lock()
		f.log, f.epoch = l.outLog(m.id.Log, now), m.epoch
		l.in.mu.Unlock()
	}
	f.refused = append(f.refused, rt.refused...)
	size := f.env.size()
	rows := rt.to
	if size > maxBodyWithoutRecords && !rt.allRecords {
		rows = make([]*recipient, 0, n)
		for _, r := range rt.to {
			if r.records {
				rows = append(rows, r)
			} else if !r.copy {
				f.refused = append(f.refused, refused{r.device, ccp.CodeTooLarge})
			}
		}
	}
	waits := 0
	for _, r := range rows {
		if !r.copy {
			waits++
		}
	}
	l.sender.mu.Lock()
	l.sender.refs++
	l.sender.mu.Unlock()
	// One more of each for this function: rows may end while it runs.
	f.left.Store(int32(waits) + 1)
	f.refs.Store(int32(len(rows)) + 1)
	for i := 0; i < len(rows); {
		j := i + 1
		for j < len(rows) && rows[j].lane == rows[i].lane {
			j++
		}
		rows[i].lane.put(f, rows[i:j])
		i = j
	}
	if f.left.Add(-1) == 0 && l.finished(f, now) {
		l.flushAcks()
	}
	f.release()
	return nil
}

// finished ends a message whose last row was settled at that time, and says whether the
// caller must flush the acknowledgements.
func (l *Link) finished(f *flight, at time.Time) (flush bool) {
	in := &l.in
	in.mu.Lock()
	if !f.failed.Load() {
		if f.log != nil {
			l.finishSend(f)
		} else {
			l.finishPlain(f)
		}
		flush = !in.touched
		in.touched = true
		l.h.metrics.Accepted(max(0, at.Sub(f.arrived).Seconds()))
	}
	l.leaveWindow(len(f.env.body), f.cost)
	in.mu.Unlock()
	l.h.senders.release(l.sender)
	return flush
}

// finishSend notes a counter as done. in.mu is held.
func (l *Link) finishSend(f *flight) {
	o := f.log
	if f.stored == 0 && allFull(f.refused) {
		body := ccp.ErrorBody{Error: ccp.CodeFull, ID: f.env.id}
		l.box.Control(ccp.TypeError, f.env.channel, body.Marshal())
		return
	}
	l.mark(o, f.env.id.Counter)
	o.add(f.env.id.Counter)
	o.dirty = true
	for _, r := range f.refused {
		o.refused = append(o.refused, ackRefusal{f.env.id.Counter, r.device, r.code})
	}
}

// finishPlain queues the Ack of an old peer's frame. in.mu is held.
func (l *Link) finishPlain(f *flight) {
	if f.stored == 0 && allFull(f.refused) {
		body := ccp.ErrorBody{Error: ccp.CodeFull, Ack: f.seq}
		l.box.Control(ccp.TypeError, f.env.channel, body.Marshal())
		return
	}
	l.in.acks = append(l.in.acks, plainAck{f.env.channel, f.seq, f.extras})
}

func allFull(list []refused) bool {
	for _, r := range list {
		if r.code != ccp.CodeFull {
			return false
		}
	}
	return len(list) > 0
}

// failed is told once of a message that could not be stored for a passing
// reason: the sender learns it and repeats from there.
func (l *Link) failed(f *flight) {
	if f.log == nil {
		body := ccp.ErrorBody{Error: ccp.CodeUnavailable, Ack: f.seq, RetryMS: retryMS}
		l.box.Control(ccp.TypeError, f.env.channel, body.Marshal())
		return
	}
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	o := f.log
	if o.epoch.Load() != f.epoch && f.env.id.Counter >= o.reported {
		return // behind a failure that the sender knows
	}
	l.sender.mu.Lock()
	done := o.sent.win.Done(f.env.id.Counter)
	l.sender.mu.Unlock()
	if done {
		return // a repetition of what has been stored meanwhile
	}
	o.failed, o.reported = f.env.id.Counter, f.env.id.Counter
	o.epoch.Add(1)
	l.sayUnavailable(f.env.channel, f.env.id)
}

// stall stops a log at a message that failed before it was launched. It stays stopped
// at an earlier one that has failed meanwhile: the sender repeats from there.
func (l *Link) stall(id ccp.MessageID) {
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	o := l.outLog(id.Log, l.h.now())
	if o.failed != 0 && o.failed < id.Counter {
		return
	}
	o.failed, o.reported = id.Counter, id.Counter
	o.epoch.Add(1)
}

func (l *Link) sayUnavailable(channel uint32, id ccp.MessageID) {
	l.h.metrics.Refused(ccp.CodeUnavailable)
	body := ccp.ErrorBody{Error: ccp.CodeUnavailable, ID: id, RetryMS: retryMS}
	l.box.Control(ccp.TypeError, channel, body.Marshal())
}

// flushAcks sends what has become done since the last time, as few frames as
// the ranges allow.
func (l *Link) flushAcks() {
	in := &l.in
	in.mu.Lock()
	defer in.mu.Unlock()
	in.touched = false
	if l.gone.Load() {
		in.acks = nil
		return
	}
	for i := range in.acks {
		a := &in.acks[i]
		in.payload = ccp.AppendReply(in.payload[:0], a.seq, a.extras...)
		l.box.Control(ccp.TypeAck, a.channel, in.payload)
		*a = plainAck{}
	}
	in.acks = in.acks[:0]
	for _, o := range in.logs {
		for o.dirty {
			l.flushLog(o)
		}
	}
}

func (l *Link) flushLog(o *outLog) {
	done := o.done
	if len(done) > ccp.MaxAckRanges {
		done = done[:ccp.MaxAckRanges]
	}
	ack := ccp.SendAck{Log: o.log, Done: done}
	n := min(len(o.refused), ccp.MaxRefusals)
	for _, r := range o.refused[:n] {
		ack.Refused = append(ack.Refused, ccp.Refusal{Counter: r.counter, Device: []byte(r.device), Error: []byte(r.code)})
	}
	payload, err := ccp.AppendSendAck(l.in.payload[:0], ack)
	if err != nil {
		l.h.log.Error("ack", "device", l.device, "error", err)
	} else {
		l.in.payload = payload
		l.box.Control(ccp.TypeAck, 0, payload)
	}
	o.done = o.done[:copy(o.done, o.done[len(done):])]
	o.refused = o.refused[:copy(o.refused, o.refused[n:])]
	if len(o.refused) == 0 {
		o.refused = nil
	}
	o.dirty = len(o.done) > 0 || len(o.refused) > 0
}

// maxEphemeral is the longest body of a message that is not stored. Where somebody
// does not read, a session drops it, and with its head it must fit what a session
// lets wait for that.
const maxEphemeral = 60 << 10

// broadcast hands a message to online recipients only.
func (l *Link) broadcast(rt *route, kind ccp.Type, channel uint32, id ccp.MessageID, now time.Time, body []byte) error {
	if len(body) > maxEphemeral {
		return refuse(ccp.CodeTooLarge, "voice, video and what is not stored: 61440 bytes at most")
	}
	e := fleeting{envelope: envelope{kind: kind, channel: channel, time: now.UnixMilli(), id: id, device: l.device, user: l.user, body: body}}
	if channel == 0 {
		e.flags = FlagDirect
	}
	if kind.Media() {
		l.h.metrics.Media(kind == ccp.TypeVideoFrame)
	}
	for _, r := range rt.to {
		if to := l.h.link(r.device); to != nil {
			to.ephemeral(&e, r.own)
		}
	}
	l.h.bus.ephemeral(rt, &e.envelope)
	return nil
}

// fleeting is a message that is not stored, on its way to the sessions of this node.
// What they get is made once, with the first of them, and shared.
type fleeting struct {
	envelope
	deliver [2][]byte // payload of Deliver; the second as own copy
}

// payload is that of a Deliver; nil where none can be made.
func (f *fleeting) payload(own bool) []byte {
	which, flags := 0, f.flags
	if own {
		which, flags = 1, flags|FlagOwnCopy
	}
	if f.deliver[which] == nil {
		b, err := ccp.AppendDeliver(make([]byte, 0, ccp.DeliverLen(len(f.device), len(f.user), len(f.body))), ccp.Deliver{
			Kind: f.kind, Flags: flags, ID: f.id, Time: f.time, Device: []byte(f.device), User: []byte(f.user), Body: f.body,
		})
		if err != nil {
			return nil
		}
		f.deliver[which] = b
	}
	return f.deliver[which]
}

// ephemeral pushes a droppable message to this link's session.
func (l *Link) ephemeral(f *fleeting, own bool) {
	b := f.payload(own)
	if b == nil {
		return
	}
	if l.ack {
		if l.records || len(b) <= maxBodyWithoutRecords {
			l.box.Media(ccp.TypeDeliver, f.channel, b)
		}
		return
	}
	// A Deliver ends with the body; f.body itself may be the sender's buffer.
	d := Delivery{Kind: f.kind, Channel: f.channel, Body: b[len(b)-len(f.body):]}
	if f.flags&FlagDirect != 0 {
		d.Channel = directChannel(f.device, l.device)
	}
	if !l.fits(&d) || l.plain && !safeForPlain(&d) {
		return
	}
	l.box.Media(d.Kind, d.Channel, d.Body)
}
