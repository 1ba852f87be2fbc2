package client

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/noise"
)

const (
	// readBuffer is the first size of the reading buffer; it grows with bytes
	// received, never with a length announced.
	readBuffer = 32 << 10
	// sendBatch is how many bytes of messages one write gathers.
	sendBatch = 64 << 10
	// doneEvery and doneAfter bound how late stored messages are acknowledged.
	doneEvery = 64
	doneAfter = 100 * time.Millisecond
	// maxCalls bounds requests that wait for their Ack.
	maxCalls = 256
	// maxControl bounds control frames waiting to be written, bytes.
	maxControl = 1 << 20
)

// session is one established connection.
type session struct {
	c         *Client
	conn      net.Conn
	transport string
	accepted  ccp.Capabilities
	window    int
	keepalive time.Duration

	seal    *noise.Sealer
	open    *noise.Opener
	sendAck ccp.SendAck // the reader's, its arrays used again
	payload []byte      // the writer's scratch

	// What arrived behind the Ack: rest is still encrypted, early is plaintext.
	rest, early []byte

	wake     chan struct{}
	lastRead atomic.Int64 // unix nanoseconds
	answered atomic.Int64 // last time that nothing waited, or an answer came
	frames   atomic.Int64 // frames received after the Ack

	mu       sync.Mutex
	sequence uint32
	control  []pending
	controls int // bytes
	calls    map[uint32]chan answer
	done     uint64 // cursor to acknowledge
	doneN    int    // deliveries since the last Done
	doneAt   time.Time
	leaving  bool
	ending   error
}

// leaveWait is how long a leaving session may take to send its last
// acknowledgement.
const leaveWait = time.Second

// leave ends the session in order: what is stored is acknowledged first.
func (s *session) leave() {
	s.mu.Lock()
	s.leaving = true
	s.doneAt = time.Time{}
	s.mu.Unlock()
	s.poke()
	time.AfterFunc(leaveWait, func() { s.end(context.Canceled) })
}

type pending struct {
	t       ccp.Type
	channel uint32
	payload []byte
	reply   chan answer
}

type answer struct {
	ack []byte
	err error
}

// poke tells the writer to look; it never blocks.
func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *session) progressed() bool { return s.frames.Load() > 0 }

// run works the connection until it ends.
func (s *session) run(ctx context.Context) error {
	now := s.c.opt.Now()
	s.lastRead.Store(now.UnixNano())
	s.answered.Store(now.UnixNano())
	stop := context.AfterFunc(ctx, s.leave)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(s.write)
	wg.Go(s.watch)
	s.c.setCurrent(s)
	s.poke()
	err := s.read()
	s.end(err)
	s.conn.Close()
	wg.Wait()
	s.c.in.discard()
	return s.reason()
}

// end notes why the session is over; the first reason counts.
func (s *session) end(err error) {
	s.mu.Lock()
	if s.ending == nil {
		if err == nil {
			err = io.EOF
		}
		s.ending = err
		for seq, ch := range s.calls {
			delete(s.calls, seq)
			ch <- answer{err: broken("the connection ended before the relay answered", err)}
		}
		for _, p := range s.control {
			if p.reply != nil {
				p.reply <- answer{err: broken("the connection ended before the request was sent", err)}
			}
		}
		s.control = nil
	}
	s.mu.Unlock()
	s.conn.Close()
	s.poke()
}

func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending
}

// watch ends a connection that is silent although the relay owes a sign of life
// or an answer.
func (s *session) watch() {
	silence := 2*s.keepalive + s.keepalive/2
	period := min(s.c.opt.AnswerTimeout/2, silence/2)
	t := time.NewTimer(period)
	defer t.Stop()
	for {
		<-t.C
		if s.reason() != nil {
			return
		}
		now := s.c.opt.Now().UnixNano()
		if s.c.out.waiting() == 0 {
			s.answered.Store(now)
		}
		switch {
		case time.Duration(now-s.answered.Load()) > s.c.opt.AnswerTimeout:
			s.end(broken("the relay does not acknowledge messages; trying another way", nil))
			return
		case time.Duration(now-s.lastRead.Load()) > silence:
			s.end(broken("the relay has been silent for too long; trying another way", nil))
			return
		}
		t.Reset(period)
	}
}

// read decrypts and handles frames until the connection ends.
func (s *session) read() error {
	var (
		in     = append(make([]byte, 0, readBuffer), s.rest...)
		plain  = s.early
		parsed = 0
	)
	s.rest, s.early = nil, nil
	for {
		// Open every complete record; their plaintexts are one byte stream.
		used := 0
		for {
			p, n, err := s.open.Next(in[used:])
			if errors.Is(err, noise.ErrIncomplete) {
				break
			}
			if err != nil {
				return broken("a record cannot be decrypted", err)
			}
			plain = append(plain, p...)
			used += n
		}
		in = in[:copy(in, in[used:])]

		for {
			f, n, err := ccp.Decode(plain[parsed:])
			if errors.Is(err, ccp.ErrIncomplete) {
				break
			}
			if err != nil {
				return broken("the relay sent a malformed frame", err)
			}
			parsed += n
			if err := s.handle(f); err != nil {
				return err
			}
		}
		plain = plain[:copy(plain, plain[parsed:])]
		parsed = 0
		if err := s.store(); err != nil {
			return err
		}
		if len(in) == cap(in) {
			in = append(in, 0)[:len(in)]
		}
		n, err := s.conn.Read(in[len(in):cap(in)])
		in = in[:len(in)+n]
		if n > 0 {
			s.lastRead.Store(s.c.opt.Now().UnixNano())
			continue
		}
		if err != nil {
			return broken("the connection ended", err)
		}
	}
}

// store commits what the last read brought and schedules its acknowledgement.
func (s *session) store() error {
	cursor, n, err := s.c.in.commit()
	if err != nil {
		return &Error{Kind: Invalid, Text: "the message store failed", Err: err}
	}
	if n == 0 {
		return nil
	}
	s.mu.Lock()
	if s.doneN == 0 {
		s.doneAt = s.c.opt.Now().Add(doneAfter)
	}
	s.done, s.doneN = cursor, s.doneN+n
	s.mu.Unlock()
	s.poke()
	return nil
}

func (s *session) handle(f ccp.Frame) error {
	s.frames.Add(1)
	switch f.Type {
	case ccp.TypeDeliver:
		return s.deliver(f)
	case ccp.TypeAck:
		return s.acknowledged(f)
	case ccp.TypeError:
		return s.failed(f)
	case ccp.TypePad:
		return nil
	case ccp.TypeKeyUpdate:
		s.c.keyUpdate(f.Payload)
		s.c.event("event", f)
	case ccp.TypePresence:
		s.c.event("presence", f)
	case ccp.TypeJoin:
		s.c.event("join", f)
	case ccp.TypeMove:
		s.c.event("move", f)
		return s.moved(f)
	default:
		s.c.event("event", f)
	}
	return nil
}

func (s *session) deliver(f ccp.Frame) error {
	var d ccp.Deliver
	if err := d.Parse(f.Payload); err != nil {
		return broken("the relay sent a malformed delivery", err)
	}
	m := Message{
		Position: d.Position, ID: d.ID, Device: string(d.Device), User: string(d.User),
		Channel: f.Channel, Kind: d.Kind, Stored: unixMilli(d.Time), Received: s.c.opt.Now(),
		Own: d.Flags&ccp.DeliverOwn != 0, Direct: d.Flags&ccp.DeliverDirect != 0,
		Body: append([]byte(nil), d.Body...),
	}
	if d.Position == 0 {
		m.Ephemeral = true
		s.c.in.ephemeral(m)
		return nil
	}
	if err := s.c.in.collect(m); err != nil {
		return &Error{Kind: Invalid, Text: "the message store failed", Err: err}
	}
	return nil
}

// acknowledged takes the answer to sent messages, or to a request.
func (s *session) acknowledged(f ccp.Frame) error {
	ack := &s.sendAck
	if err := ack.Parse(f.Payload); err == nil {
		s.answered.Store(s.c.opt.Now().UnixNano())
		if log, _ := s.c.out.high(); log != ack.Log {
			return nil
		}
		for _, r := range ack.Refused {
			s.c.out.refuse(r.Counter, Refusal{Device: string(r.Device), Code: string(r.Error)})
		}
		for _, r := range ack.Done {
			s.c.out.ack(r[0], r[1])
		}
		s.poke()
		return nil
	}
	seq, err := ccp.ParseReply(f.Payload)
	if err != nil {
		return nil // an Ack of a form that this version does not know
	}
	s.answer(seq, answer{ack: append([]byte(nil), f.Payload...)})
	return nil
}

func (s *session) answer(seq uint32, a answer) {
	s.mu.Lock()
	ch := s.calls[seq]
	delete(s.calls, seq)
	s.mu.Unlock()
	if ch != nil {
		ch <- a
	}
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
		s.answered.Store(s.c.opt.Now().UnixNano())
		if log, _ := s.c.out.high(); log != e.ID.Log {
			return nil
		}
		if e.Error == ccp.CodeUnavailable {
			s.c.out.rewind(e.ID.Counter, s.c.opt.Now().Add(time.Duration(min(e.RetryMS, 60_000))*time.Millisecond))
		} else {
			s.c.out.fail(e.ID.Counter, e.Error)
		}
		s.poke()
		return nil
	case e.Ack != 0:
		s.answer(e.Ack, answer{err: &Error{Kind: Refused, Code: e.Error, Text: "the relay refused the request"}})
		return nil
	}
	text := refusals[e.Error]
	if text == "" {
		text = "the relay ended the session"
	}
	return &Error{Kind: Refused, Code: e.Error, Text: text}
}

// moved leaves in order: what is stored is acknowledged first.
func (s *session) moved(f ccp.Frame) error {
	m, err := ccp.ParseMove(f.Payload)
	if err != nil {
		return broken("the relay sent a malformed move", err)
	}
	s.c.learnEndpoints(m)
	s.leave()
	return nil
}
