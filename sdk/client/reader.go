package client

import (
	"errors"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/noise"
)

const (
	// readBuffer is the first size of the reading buffer; it grows with bytes
	// received, never with a length announced, up to readMost.
	readBuffer = 4 << 10
	readMost   = 128 << 10
	// keepPlain is how much room for a large frame stays after it.
	keepPlain = 256 << 10
)

// read decrypts and handles frames until the connection ends.
func (s *session) read() error {
	var (
		in    = append(make([]byte, 0, max(readBuffer, len(s.rest))), s.rest...)
		plain = s.early
	)
	s.rest, s.early = nil, nil
	for {
		s.now = s.c.opt.Now()
		var err error
		if in, plain, err = s.batch(in, plain); err != nil {
			return err
		}
		if err := s.store(); err != nil {
			return err
		}
		if len(plain) == 0 && cap(plain) > keepPlain {
			plain = nil
		}
		if len(in) == cap(in) {
			in = append(in, 0)[:len(in)]
		}
		n, err := s.conn.Read(in[len(in):cap(in)])
		in = in[:len(in)+n]
		switch {
		case n > 0:
			s.lastRead.Store(s.c.opt.Now().UnixNano())
			if len(in) == cap(in) && cap(in) < readMost {
				in = append(make([]byte, 0, 2*cap(in)), in...) // a busy line: fewer reads
			}
		case err != nil:
			return broken("the connection ended", err)
		}
	}
}

// batch opens every complete record in in, whose plaintexts are one byte stream,
// and handles every complete frame. It returns what is left.
func (s *session) batch(in, plain []byte) (restIn, restPlain []byte, err error) {
	used := 0
	for {
		p, n, err := s.open.Next(in[used:])
		if errors.Is(err, noise.ErrIncomplete) {
			break
		}
		if err != nil {
			return nil, nil, broken("a record cannot be decrypted", err)
		}
		plain = append(plain, p...)
		used += n
	}
	if used > 0 {
		in = in[:copy(in, in[used:])]
	}
	parsed := 0
	for parsed < len(plain) {
		f, n, err := ccp.Decode(plain[parsed:])
		if errors.Is(err, ccp.ErrIncomplete) {
			break
		}
		if err != nil {
			return nil, nil, broken("the relay sent a malformed frame", err)
		}
		parsed += n
		if err := s.handle(f); err != nil {
			return nil, nil, err
		}
	}
	if parsed > 0 {
		plain = plain[:copy(plain, plain[parsed:])]
	}
	return in, plain, nil
}

// store commits what the last read brought and schedules its acknowledgement.
func (s *session) store() error {
	cursor, n, err := s.c.in.commit()
	if err != nil {
		return storeFailed(err)
	}
	if n == 0 {
		return nil
	}
	s.progress.Store(true)
	s.owe(cursor, n)
	return nil
}

// owe schedules a Done for n more deliveries.
func (s *session) owe(cursor uint64, n int) {
	s.mu.Lock()
	first := s.doneN == 0
	if first {
		s.doneAt = s.now.Add(doneAfter)
	}
	s.done, s.doneN = cursor, s.doneN+n
	due := s.doneN >= doneEvery || s.leaving != nil
	s.mu.Unlock()
	if first || due {
		s.poke()
	}
}

func (s *session) handle(f ccp.Frame) error {
	switch f.Type {
	case ccp.TypeDeliver:
		return s.deliver(f)
	case ccp.TypeAck:
		return s.acknowledged(f)
	case ccp.TypeError:
		return s.failed(f)
	case ccp.TypePad:
	case ccp.TypeKeyUpdate:
		s.c.keyUpdate(f.Payload)
		s.c.event("event", f)
	case ccp.TypePresence:
		s.c.event("presence", f)
	case ccp.TypeJoin:
		s.c.event("join", f)
	case ccp.TypeMove:
		return s.moved(f)
	default:
		s.c.event("event", f)
	}
	return nil
}

func (s *session) deliver(f ccp.Frame) error {
	var d ccp.Deliver
	bad := d.Parse(f.Payload)
	if bad != nil && d.Position == 0 {
		return broken("the relay sent a malformed delivery", bad)
	}
	if d.Position == 0 {
		s.c.in.ephemeral(s.message(&d, f.Channel))
		return nil
	}
	if d.Position <= s.pos {
		return broken("the relay delivers out of order", nil)
	}
	s.pos = d.Position
	if !s.ignore && s.c.in.crowded() {
		s.ignore = true
		s.mu.Lock()
		s.lives = true
		s.mu.Unlock()
		s.owe(s.done, 1)
		s.c.opt.Log.Warn("the handler is behind; further messages stay at the relay")
	}
	switch {
	case s.ignore:
		return nil
	case bad != nil:
		// Nothing can be done with it, now or later: it counts as received.
		s.c.opt.Log.Warn("a message of an unknown form was dropped", "error", bad)
		s.c.in.skip(d.Position)
		return nil
	}
	if s.c.in.duplicate(&d) {
		return nil
	}
	if err := s.c.in.collect(&d, s.message(&d, f.Channel)); err != nil {
		return storeFailed(err)
	}
	return nil
}

func (s *session) message(d *ccp.Deliver, channel uint32) Message {
	return Message{
		Position: d.Position, ID: d.ID, Device: s.c.in.name(d.Device), User: s.c.in.name(d.User),
		Channel: channel, Kind: d.Kind, Stored: time.UnixMilli(d.Time).UTC(), Received: s.now,
		Own: d.Flags&ccp.DeliverOwn != 0, Direct: d.Flags&ccp.DeliverDirect != 0, Ephemeral: d.Position == 0,
		Body: append([]byte(nil), d.Body...),
	}
}

// acknowledged takes the answer to sent messages, or to a request.
func (s *session) acknowledged(f ccp.Frame) error {
	if err := s.sendAck.Parse(f.Payload); err == nil {
		s.progress.Store(true)
		if s.c.out.acknowledge(&s.sendAck, s.now) {
			s.poke()
		}
		return s.renew()
	}
	if seq, err := ccp.ParseReply(f.Payload); err == nil {
		s.answer(seq, answer{ack: append([]byte(nil), f.Payload...)})
	}
	return nil // else an Ack of a form that this version does not know
}

// renew begins a new log once everything else is answered, where the relay called
// an id bad.
func (s *session) renew() error {
	if !s.c.out.spent() {
		return nil
	}
	if _, bytes := s.c.out.unanswered(); bytes != 0 {
		return nil
	}
	err := s.c.newLog()
	s.poke()
	return err
}

// failed takes an Error frame: about a message, about a request, or about the
// session.
func (s *session) failed(f ccp.Frame) error {
	e, err := ccp.ParseErrorBody(f.Payload)
	if err != nil {
		return broken("the relay sent a malformed error", err)
	}
	switch {
	case e.ID.Counter != 0:
		s.c.out.refused(e, s.now)
		s.poke()
		return s.renew()
	case e.Ack != 0:
		s.answer(e.Ack, answer{err: refusedRequest(e.Error)})
		return nil
	}
	return ended(e.Error)
}

// moved leaves in order for another endpoint.
func (s *session) moved(f ccp.Frame) error {
	m, err := ccp.ParseMove(f.Payload)
	if err != nil {
		return broken("the relay sent a malformed move", err)
	}
	s.c.event("move", f)
	s.c.learn(s.endpoint, m)
	s.sent = m.Reason != ccp.MoveBlocked
	s.leave(moving(m.Reason))
	return nil
}
