package client

import (
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/noise"
)

const (
	// sendBatch is how many bytes of messages one write gathers.
	sendBatch = 64 << 10
	// keepWriter is how much room the writer keeps when it has slept undisturbed.
	keepWriter = 16 << 10
)

// write sends what the outbox, the requests and the acknowledgements have to
// say, gathered into one batch of records and one Write. It sleeps until poked
// or until the next thing is due.
func (s *session) write() {
	var (
		frames, records []byte
		timer           = time.NewTimer(s.keepalive)
		lastWrite       = s.c.opt.Now()
		scratch         []byte
	)
	defer timer.Stop()
	for !s.isOver() {
		now := s.c.opt.Now()
		var (
			n   int
			err error
		)
		frames, scratch, n, err = s.gather(frames[:0], scratch, now)
		if err == nil && (len(frames) > 0 || now.Sub(lastWrite) >= s.keepalive) {
			records, err = s.seal.AppendRecords(records[:0], frames, noise.DefaultRecord)
			if err == nil {
				err = s.put(records)
			}
			lastWrite = now
		}
		if err != nil {
			s.end(broken("sending failed", err))
			return
		}
		if n > 0 {
			s.c.out.wrote(s.c.opt.Now())
			continue // more may have gathered while this was written
		}
		if err := s.left(); err != nil {
			s.end(err)
			return
		}
		if cap(frames) > 4*sendBatch {
			frames, records = nil, nil
		}
		timer.Reset(s.due(now, lastWrite))
		select {
		case <-s.wake:
		case <-timer.C: // nothing for a while
			if cap(frames) > keepWriter {
				frames, records = nil, nil
			}
		case <-s.over:
		}
	}
}

// put writes records, in pieces so that a slow line shows its progress.
func (s *session) put(records []byte) error {
	defer s.writing.Store(0)
	for len(records) > 0 {
		s.writing.Store(s.c.opt.Now().UnixNano())
		n := len(records)
		if n > 2*sendBatch {
			n = sendBatch
		}
		if _, err := s.conn.Write(records[:n]); err != nil {
			return err
		}
		records = records[n:]
	}
	return nil
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

// gather appends the frames that are due, n of them messages.
func (s *session) gather(dst, scratch []byte, now time.Time) (out, room []byte, n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range s.control {
		if dst, err = s.frame(dst, p.t, p.channel, p.payload); err != nil {
			return dst, scratch, 0, err
		}
		if p.reply != nil {
			s.calls[s.sequence] = p.reply
		}
		s.control[i] = pending{}
	}
	s.control, s.controls = s.control[:0], 0

	if s.doneN >= doneEvery || s.doneN > 0 && !s.doneAt.After(now) {
		if scratch, err = ccp.AppendDone(scratch[:0], ccp.Done{Cursor: s.done}); err != nil {
			return dst, scratch, 0, err
		}
		s.doneN = 0
		if dst, err = s.frame(dst, ccp.TypeDone, 0, scratch); err != nil {
			return dst, scratch, 0, err
		}
		if s.lives {
			s.lives = false
			if dst, err = s.frame(dst, ccp.TypeDone, 0, scratch); err != nil {
				return dst, scratch, 0, err
			}
		}
	}
	if s.leaving == nil {
		dst, n, err = s.c.out.gather(dst, s.window, sendBatch, now, &s.sequence)
	}
	return dst, scratch, n, err
}

// frame appends one frame with the next sequence number; mu is held.
func (s *session) frame(dst []byte, t ccp.Type, channel uint32, payload []byte) ([]byte, error) {
	if err := nextSequence(&s.sequence); err != nil {
		return dst, err
	}
	return ccp.Append(dst, ccp.Frame{Type: t, Channel: channel, Sequence: s.sequence, Payload: payload})
}

func nextSequence(seq *uint32) error {
	if *seq == ccp.MaxSequence {
		return broken("the connection has used all its sequence numbers", nil)
	}
	*seq++
	return nil
}

// left is why the session is left, once it has nothing more to say.
func (s *session) left() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.doneN != 0 || len(s.control) != 0 {
		return nil
	}
	return s.leaving
}
