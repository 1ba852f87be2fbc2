package client

import (
	"context"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/noise"
)

// write sends what the outbox, the requests and the acknowledgements have to
// say, gathered into one batch of records and one Write. It sleeps until poked
// or until the next thing is due.
func (s *session) write() {
	var (
		frames, records []byte
		items           []*item
		to              [][]byte
		timer           = time.NewTimer(s.keepalive)
		lastWrite       = s.c.opt.Now()
	)
	defer timer.Stop()
	for {
		if s.reason() != nil {
			return
		}
		now := s.c.opt.Now()
		var err error
		frames, err = s.gather(frames[:0], &items, &to, now)
		if err != nil {
			s.end(err)
			return
		}
		idle := now.Sub(lastWrite) >= s.keepalive
		if len(frames) > 0 || idle {
			records, err = s.seal.AppendRecords(records[:0], frames, noise.DefaultRecord)
			if err == nil {
				_, err = s.conn.Write(records)
			}
			if err != nil {
				s.end(broken("sending failed", err))
				return
			}
			lastWrite = now
			if len(items) > 0 {
				continue // more may have gathered while this was written
			}
		}
		if s.left() {
			s.end(context.Canceled)
			return
		}
		if cap(frames) > 4*sendBatch { // one large message must not stay for ever
			frames, records, s.payload = nil, nil, nil
		}
		timer.Reset(s.due(now, lastWrite))
		select {
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// due says how long the writer may sleep.
func (s *session) due(now, lastWrite time.Time) time.Duration {
	d := s.keepalive - now.Sub(lastWrite)
	s.mu.Lock()
	if s.doneN > 0 {
		d = min(d, s.doneAt.Sub(now))
	}
	s.mu.Unlock()
	if hold := s.c.out.hold(); hold.After(now) {
		d = min(d, hold.Sub(now))
	}
	return max(d, time.Millisecond)
}

// gather appends the frames that are due.
func (s *session) gather(dst []byte, items *[]*item, to *[][]byte, now time.Time) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for i, p := range s.control {
		if dst, err = s.frame(dst, p.t, p.channel, p.payload); err != nil {
			return dst, err
		}
		if p.reply != nil {
			s.calls[s.sequence] = p.reply
		}
		s.control[i] = pending{}
	}
	s.control, s.controls = s.control[:0], 0

	if s.doneN >= doneEvery || s.doneN > 0 && !s.doneAt.After(now) {
		if dst, err = s.appendDone(dst); err != nil {
			return dst, err
		}
	}

	*items = (*items)[:0]
	if s.leaving {
		return dst, nil
	}
	*items = s.c.out.next(*items, s.window, sendBatch, now)
	log, _ := s.c.out.high()
	for _, it := range *items {
		*to = (*to)[:0]
		for _, id := range it.To {
			*to = append(*to, []byte(id))
		}
		m := ccp.Send{
			Kind: it.Kind, ID: ccp.MessageID{Log: log, Counter: it.Counter},
			Flags: it.Flags, To: *to, TTL: it.TTL, Body: it.Body,
		}
		s.payload, err = ccp.AppendSend(s.payload[:0], m)
		if err == nil {
			dst, err = s.frame(dst, ccp.TypeSend, it.Channel, s.payload)
		}
		if err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// frame appends one frame with the next sequence number; mu is held.
func (s *session) frame(dst []byte, t ccp.Type, channel uint32, payload []byte) ([]byte, error) {
	if s.sequence == ccp.MaxSequence {
		return dst, broken("the connection has used all its sequence numbers", nil)
	}
	s.sequence++
	return ccp.Append(dst, ccp.Frame{Type: t, Channel: channel, Sequence: s.sequence, Payload: payload})
}

// appendDone acknowledges everything stored so far; mu is held.
func (s *session) appendDone(dst []byte) ([]byte, error) {
	var err error
	if s.payload, err = ccp.AppendDone(s.payload[:0], ccp.Done{Cursor: s.done}); err != nil {
		return dst, err
	}
	s.doneN = 0
	return s.frame(dst, ccp.TypeDone, 0, s.payload)
}

// left says that a leaving session has nothing more to say.
func (s *session) left() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaving && s.doneN == 0 && len(s.control) == 0
}

// call sends one control frame and waits for its Ack.
func (s *session) call(ctx context.Context, t ccp.Type, channel uint32, payload []byte) ([]byte, error) {
	reply := make(chan answer, 1)
	s.mu.Lock()
	switch {
	case s.ending != nil:
		err := s.ending
		s.mu.Unlock()
		return nil, err
	case len(s.calls)+len(s.control) >= maxCalls || s.controls+len(payload) > maxControl:
		s.mu.Unlock()
		return nil, &Error{Kind: Full, Text: "too many requests wait for the relay"}
	}
	s.control = append(s.control, pending{t, channel, payload, reply})
	s.controls += len(payload)
	s.mu.Unlock()
	s.poke()
	select {
	case a := <-reply:
		return a.ack, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
