package session

import (
	"errors"
	"io"

	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/noise"
)

// denseRead is the size of a read from which the reader keeps its buffer for the
// next one: the link is busy. An idle link's next read is a small keep-alive, so a
// buffer is held for one keep-alive interval at most.
const denseRead = 4 << 10

// slotFrame is the size from which a frame needs a slot of limits.large_frames.
const slotFrame = 1 << 20

// intake is what the reader holds: bytes not yet opened, and a frame that is not
// yet whole.
type intake struct {
	buf   []byte // pooled, or the session's tiny array, or nil
	off   int
	frame []byte
	slot  int64
	ended string // the reason to stop
}

// read takes in records and hands their frames over until the connection ends; it
// answers why.
func (s *Session) read() string {
	in := &intake{buf: s.early}
	defer s.drop(in)
	s.early = nil
	plain := s.earlyPlain
	s.earlyPlain = nil
	spent := s.spent
	s.spent = "" // what came before our Ack went out does not show that it arrived
	if s.plaintext(in, plain) {
		s.consume(in)
	}
	s.spent = spent
	s.clock.partial(in.waiting(), 0)
	for in.ended == "" {
		n, err := s.receive(in)
		if n > 0 && s.ending.Load() {
			in.buf, in.off = in.buf[:0], 0 // only the end is awaited
		} else if n > 0 {
			s.arrived(n)
			s.consume(in)
			s.clock.partial(in.waiting(), n)
		}
		if err != nil {
			return s.over(err)
		}
	}
	return s.linger(in)
}

// linger reads on after the session has decided to end, until the peer or the
// farewell time ends the connection.
func (s *Session) linger(in *intake) string {
	for s.ending.Load() {
		if _, err := s.conn.Read(s.tiny[:]); err != nil {
			break
		}
	}
	return in.ended
}

// over says why the connection ended.
func (s *Session) over(err error) string {
	if errors.Is(err, io.EOF) {
		s.prove() // a clean close proves what was written
		return "closed"
	}
	return "read"
}

// waiting says that something is begun and not whole.
func (in *intake) waiting() bool { return len(in.buf) > in.off || len(in.frame) > 0 }

func (s *Session) drop(in *intake) {
	s.srv.pool.put(in.buf)
	s.doneFrame(in)
}

// receive waits for bytes: with the tiny array when idle.
func (s *Session) receive(in *intake) (int, error) {
	switch {
	case in.buf == nil:
		n, err := s.conn.Read(s.tiny[:])
		in.buf, in.off = s.tiny[:n:idleRead], 0
		return n, err
	case len(in.buf) > 0 && cap(in.buf) == idleRead:
		in.buf = s.srv.pool.grow(in.buf, midBuf)
	case len(in.buf) == cap(in.buf) && in.off > 0:
		in.buf = in.buf[:copy(in.buf, in.buf[in.off:])]
		in.off = 0
	case len(in.buf) == cap(in.buf):
		in.buf = s.srv.pool.grow(in.buf, len(in.buf)+1)
	}
	n, err := s.conn.Read(in.buf[len(in.buf):cap(in.buf)])
	in.buf = in.buf[:len(in.buf)+n]
	return n, err
}

// arrived notes a sign of life.
func (s *Session) arrived(n int) {
	s.srv.count(metrics.BytesIngress, n)
	s.clock.readNow()
	s.prove()
}

// prove tells the relay, for peers without ack, that what was written arrived. As
// long as the form of the data is not known, nobody knows whether it was understood.
func (s *Session) prove() {
	if s.caps.Has(ccp.Ack) || s.form() == modeUndecided {
		return
	}
	if w := s.written.Load(); w > s.proven.Load() {
		s.proven.Store(w)
		s.link.Alive(w)
	}
}

// consume opens what is complete in the buffer, and gives the buffer back if
// nothing is left and the link looks idle.
func (s *Session) consume(in *intake) {
	fresh := len(in.buf)
	for in.ended == "" && in.off < len(in.buf) {
		if !s.step(in) {
			break
		}
	}
	if in.off < len(in.buf) {
		if in.off > 0 {
			in.buf = in.buf[:copy(in.buf, in.buf[in.off:])]
			in.off = 0
		}
		return
	}
	in.off = 0
	if fresh >= denseRead && cap(in.buf) >= midBuf {
		in.buf = in.buf[:0]
		return
	}
	s.srv.pool.put(in.buf)
	in.buf = nil
}

// step takes one record, or clear bytes; false: more bytes are needed, or in.ended.
func (s *Session) step(in *intake) bool {
	switch s.form() {
	case modeClear:
		p := in.buf[in.off:]
		in.off = len(in.buf)
		return s.plaintext(in, p)
	case modeUndecided:
		return s.decide(in)
	}
	plain, n, err := s.recv.Next(in.buf[in.off:])
	switch {
	case errors.Is(err, noise.ErrIncomplete):
		return false
	case err != nil:
		// CCP-1 4.1: an undecryptable record closes without an Error frame.
		in.ended = "record"
		s.cut(in.ended)
		return false
	}
	in.off += n
	if s.spent != "" {
		go s.spend(s.spent)
		s.spent = ""
	}
	if len(plain) == 0 {
		s.clock.echo()
	}
	return s.plaintext(in, plain)
}

// form reads the data mode; only the reader changes it.
func (s *Session) form() mode {
	if s.caps.Has(ccp.ProofBinding) {
		return modeRecords
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mode
}

// decide settles, by the first upstream bytes, between records and clear frames
// (ccp1.md 4.2): clear only if they are no record of ours and are exactly one
// well-formed frame. AEAD success is never ambiguous; the choice is final.
func (s *Session) decide(in *intake) bool {
	data := in.buf[in.off:]
	plain, n, err := s.recv.AppendNext(nil, data)
	if err == nil {
		in.off += n
		s.settle(modeRecords)
		return s.plaintext(in, plain)
	}
	if errors.Is(err, noise.ErrIncomplete) {
		return false
	}
	f, n, ferr := ccp.Decode(data)
	if errors.Is(ferr, ccp.ErrIncomplete) && len(data) < largeBuf {
		return false
	}
	if ferr == nil {
		if exact, e := ccp.EncodedLen(f.Type, f.Channel, f.Sequence, len(f.Payload)); e == nil && exact == n {
			return s.turnClear(in)
		}
	}
	in.ended = "record"
	s.cut(in.ended)
	return false
}

// turnClear serves clear frames from here on. Deliveries that went out as records
// cannot have been read: the connection ends and they come again on the next one.
func (s *Session) turnClear(in *intake) bool {
	s.mu.Lock()
	unread := s.position > 0
	s.mu.Unlock()
	if unread {
		in.ended = "record"
		s.cut(in.ended)
		return false
	}
	s.settle(modeClear)
	return true
}

func (s *Session) settle(m mode) {
	s.mu.Lock()
	s.mode = m
	s.mu.Unlock()
}

// plaintext takes the next bytes of the frame stream. Whole frames are handed
// over from where they lie; only a frame that spans records is gathered.
func (s *Session) plaintext(in *intake, p []byte) bool {
	for len(p) > 0 {
		if len(in.frame) > 0 {
			var ok bool
			if p, ok = s.gather(in, p); !ok {
				return false
			}
			continue
		}
		f, n, err := ccp.Decode(p)
		if errors.Is(err, ccp.ErrIncomplete) {
			if _, err := ccp.Size(p); err != nil && !errors.Is(err, ccp.ErrIncomplete) {
				return s.undecodable(in, err)
			}
			in.frame = append(s.srv.pool.get(len(p)), p...)
			return true
		}
		if err != nil {
			return s.undecodable(in, err)
		}
		if !s.handle(in, f) {
			return false
		}
		p = p[n:]
	}
	return true
}

// gather adds to the frame that is not yet whole, and answers what is left.
func (s *Session) gather(in *intake, p []byte) ([]byte, bool) {
	total, err := ccp.Size(in.frame)
	if errors.Is(err, ccp.ErrIncomplete) { // its length prefix is cut: byte by byte
		in.frame = s.extend(in.frame, p[:1])
		if _, err := ccp.Size(in.frame); err != nil && !errors.Is(err, ccp.ErrIncomplete) {
			return nil, s.undecodable(in, err)
		}
		return p[1:], true
	}
	if err != nil {
		return nil, s.undecodable(in, err)
	}
	take := min(total-len(in.frame), len(p))
	if len(in.frame)+take > slotFrame && in.slot == 0 && !s.takeSlot(in, int64(total)) {
		return nil, false
	}
	in.frame = s.extend(in.frame, p[:take])
	if len(in.frame) < total {
		return nil, true
	}
	f, _, err := ccp.Decode(in.frame)
	if err != nil {
		return nil, s.undecodable(in, err)
	}
	ok := s.handle(in, f)
	s.doneFrame(in)
	return p[take:], ok
}

// extend appends within the pool's sizes, and beyond them by doubling: memory
// follows what has come, never what was announced.
func (s *Session) extend(b, p []byte) []byte {
	if len(b)+len(p) <= cap(b) {
		return append(b, p...)
	}
	if len(b)+len(p) <= largeBuf {
		return append(s.srv.pool.grow(b, len(b)+len(p)), p...)
	}
	out := append(make([]byte, 0, max(2*cap(b), len(b)+len(p))), b...)
	s.srv.pool.put(b)
	return append(out, p...)
}

// takeSlot stops reading until the budget of large frames has room.
func (s *Session) takeSlot(in *intake, n int64) bool {
	if n > s.srv.opt.Limits.LargeFrames {
		in.ended = ccp.CodeTooLarge
		s.Close(in.ended)
		return false
	}
	s.clock.busy.Store(true)
	defer s.clock.busy.Store(false)
	if !s.srv.large.take(n, s.stop) {
		in.ended = "closed"
		return false
	}
	in.slot = n
	s.srv.opt.Metrics.Move(metrics.LargeFrameBytes, int(n))
	return true
}

func (s *Session) doneFrame(in *intake) {
	s.srv.pool.put(in.frame)
	in.frame = nil
	if in.slot > 0 {
		s.srv.large.give(in.slot)
		s.srv.opt.Metrics.Move(metrics.LargeFrameBytes, -int(in.slot))
		in.slot = 0
	}
}

// undecodable ends the session with the one error the reference sends.
func (s *Session) undecodable(in *intake, err error) bool {
	s.srv.opt.Log.Debug("frame", "device", s.device, "error", err)
	in.ended = ccp.CodeDecode
	s.Close(ccp.CodeDecode)
	return false
}

// handle hands one frame to the relay. It may wait there for room in the window.
func (s *Session) handle(in *intake, f ccp.Frame) bool {
	s.srv.count(metrics.FramesIngress, 1)
	s.clock.busy.Store(true)
	err := s.link.Handle(f)
	s.clock.busy.Store(false)
	switch {
	case err == nil:
		return !s.ending.Load() || s.ended(in, "closed")
	case errors.Is(err, relay.ErrClosed):
		return s.ended(in, "closed")
	}
	return s.undecodable(in, err)
}

// ended notes the reason and answers false.
func (s *Session) ended(in *intake, reason string) bool {
	in.ended = reason
	s.mu.Lock()
	told := s.closing || s.closed
	s.mu.Unlock()
	if !told { // the relay let go without a word
		s.Close(ccp.CodeUnavailable)
	}
	return false
}
