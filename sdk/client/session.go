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
	// doneEvery and doneAfter bound how late stored messages are acknowledged.
	doneEvery = 64
	doneAfter = 100 * time.Millisecond
	// maxCalls bounds requests that wait for their Ack.
	maxCalls = 256
	// maxControl bounds control frames waiting to be written, bytes.
	maxControl = 1 << 20
	// leaveWait is how long a leaving session may take to send its last
	// acknowledgement.
	leaveWait = time.Second
	// stallAfter is how long one piece of a write may take.
	stallAfter = 30 * time.Second
	// flushAfter is how often the profile is saved for what need not be on the disk at
	// once: an entry credential, ways that a Move named, a renewed certificate. However
	// much of it a relay sends, it costs no more writes.
	flushAfter = 30 * time.Second
	// slowLine is the speed, bytes a second, that a line is granted before an
	// unanswered message counts as lost.
	slowLine = 16 << 10
)

// session is one established connection.
type session struct {
	c         *Client
	conn      net.Conn
	transport string
	endpoint  string
	began     time.Time // of the dial
	accepted  ccp.Capabilities
	window    int
	keepalive time.Duration
	resumable time.Duration // life of the token after the connection
	resumed   bool

	seal    *noise.Sealer
	open    *noise.Opener
	sendAck ccp.SendAck // the reader's, its arrays used again
	now     time.Time   // of the reader's present batch
	pos     uint64      // position of the last delivery

	// What arrived behind the Ack: rest is still encrypted, early is plaintext.
	rest, early []byte

	wake     chan struct{}
	over     chan struct{} // closed by end
	lastRead atomic.Int64  // unix nanoseconds
	writing  atomic.Int64  // since when a write has made no progress; 0: none runs
	progress atomic.Bool   // a delivery or an acknowledgement arrived
	suspect  atomic.Bool   // ended because the relay was silent
	cut      atomic.Bool   // ended by this program
	ignore   bool          // the store is full: deliveries wait for another connection
	stood    time.Duration // how long, once it has ended
	sent     bool          // the relay sent it away, with all others perhaps

	mu       sync.Mutex
	sequence uint32
	control  []pending
	controls int // bytes
	calls    map[uint32]chan answer
	done     uint64 // cursor to acknowledge
	doneN    int    // deliveries since the last Done
	doneAt   time.Time
	// lives owes the relay a Done that covers nothing new: deliveries are left without one,
	// and not because they crash this end, which would cost the first its place (protocol
	// section 7).
	lives   bool
	leaving error // why it is left, nil while it is not
	leaver  *time.Timer
	ending  error
}

// pending is a control frame to be written.
type pending struct {
	t       ccp.Type
	channel uint32
	payload []byte
	reply   chan answer // buffered; nil: no answer is expected
}

type answer struct {
	ack []byte
	err error
}

func newSession(c *Client, d *dialled, seal *noise.Sealer, open *noise.Opener, sequence uint32) *session {
	return &session{
		c: c, conn: d.conn, transport: d.transport, endpoint: d.endpoint, began: d.began, accepted: d.accepted,
		seal: seal, open: open, sequence: sequence,
		wake: make(chan struct{}, 1), over: make(chan struct{}), calls: make(map[uint32]chan answer),
	}
}

// poke tells the writer to look; it never blocks.
func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *session) progressed() bool { return s.progress.Load() }

// proven says of a session that has ended that it stood for a while and something came by
// it: a message, or at least it did not end by silence.
func (s *session) proven() bool {
	return s.stood >= steady && (s.progressed() || !s.suspect.Load())
}

// run works the connection until it ends. Its goroutines have ended when it
// returns.
func (s *session) run(ctx context.Context) error {
	s.lastRead.Store(s.c.opt.Now().UnixNano())
	var wg sync.WaitGroup
	wg.Go(s.write)
	wg.Go(s.watch)
	s.c.setCurrent(s)
	stop := context.AfterFunc(ctx, func() { s.leave(context.Canceled) })
	s.poke()
	s.end(s.read())
	stop()
	wg.Wait()
	s.c.in.discard()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaver != nil {
		s.leaver.Stop()
	}
	return s.ending
}

// leave ends the session in order, with err: what is stored is acknowledged first.
func (s *session) leave(err error) {
	s.mu.Lock()
	if s.leaving == nil {
		s.leaving = err
	}
	err = s.leaving
	s.doneAt = time.Time{}
	if s.leaver == nil && s.ending == nil {
		s.leaver = time.AfterFunc(leaveWait, func() { s.end(err) })
	}
	s.mu.Unlock()
	s.poke()
}

// end notes why the session is over; the first reason counts.
func (s *session) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending != nil {
		return
	}
	switch {
	case err == nil:
		err = io.EOF
	case s.leaving != nil && isKind(err, Broken): // the other side was faster
		err = s.leaving
	}
	s.ending = err
	close(s.over)
	s.conn.Close()
	for seq, ch := range s.calls {
		delete(s.calls, seq)
		ch <- answer{err: broken("the connection ended before the relay answered; ask again", err)}
	}
	for _, p := range s.control {
		if p.reply != nil {
			p.reply <- answer{err: broken("the connection ended before the request was sent; ask again", err)}
		}
	}
	s.control, s.controls = nil, 0
}

func (s *session) isOver() bool {
	select {
	case <-s.over:
		return true
	default:
		return false
	}
}

// watch ends a connection that is silent although the relay owes a sign of life
// or an answer. It compares wall clocks, so that a machine that slept notices.
func (s *session) watch() {
	silence := 2*s.keepalive + s.keepalive/2
	period := max(min(s.c.opt.AnswerTimeout, silence, stallAfter)/4, time.Millisecond)
	t := time.NewTicker(period)
	defer t.Stop()
	last := s.c.opt.Now()
	// A disk that is full for a moment ends no device: these writes are tried again, by the
	// next flush and at the end of Run.
	failed := false
	note := func(err error) {
		if err != nil && !failed && !errors.Is(err, ErrClosed) {
			s.c.opt.Log.Warn("what changed could not be saved, and will be tried again", "error", err)
		}
		failed = err != nil
	}
	token := s.c.saveSession()
	note(token)
	flush := last.Add(flushAfter)
	for {
		select {
		case <-s.over:
			return
		case <-t.C:
		}
		now := s.c.opt.Now()
		if now.After(flush) {
			flush = now.Add(flushAfter)
			if token != nil {
				token = s.c.saveSession()
			}
			note(errors.Join(token, s.c.flush()))
		}
		if now.UnixNano() < last.UnixNano() {
			s.setBack(now)
			flush = now.Add(flushAfter)
		}
		last = now
		if err := s.silent(silence); err != nil {
			s.suspect.Store(true)
			s.end(err)
			return
		}
	}
}

// setBack begins every wait anew: the clock was set back, and by it they would last
// longer by as much.
func (s *session) setBack(now time.Time) {
	s.lastRead.Store(now.UnixNano())
	if since := s.writing.Load(); since != 0 {
		s.writing.CompareAndSwap(since, now.UnixNano())
	}
	s.c.out.wrote(now)
}

func (s *session) silent(silence time.Duration) error {
	now := s.c.opt.Now().UnixNano()
	since := func(t int64) time.Duration { return time.Duration(now - t) }
	writing := s.writing.Load()
	asked, bytes := s.c.out.unanswered()
	patience := s.c.opt.AnswerTimeout + time.Duration(bytes)*time.Second/slowLine
	switch {
	case writing != 0 && since(writing) > stallAfter:
		return broken("the connection takes no more data; trying another way", nil)
	case writing == 0 && asked != 0 && since(asked) > patience:
		return broken("the relay does not acknowledge messages; trying another way", nil)
	case since(s.lastRead.Load()) > silence:
		return broken("the relay has been silent for too long; trying another way", nil)
	}
	return nil
}

// queue hands a control frame to the writer.
func (s *session) queue(p pending) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ending != nil:
		return broken("the connection ended before the request was sent; ask again", s.ending)
	case len(s.calls)+len(s.control) >= maxCalls || s.controls+len(p.payload) > maxControl:
		return &Error{Kind: Full, Text: "too many requests wait for the relay"}
	}
	s.control = append(s.control, p)
	s.controls += len(p.payload)
	s.poke()
	return nil
}

// call sends one control frame and waits for its Ack.
func (s *session) call(ctx context.Context, t ccp.Type, channel uint32, payload []byte) ([]byte, error) {
	reply := make(chan answer, 1)
	if err := s.queue(pending{t, channel, payload, reply}); err != nil {
		return nil, err
	}
	select {
	case a := <-reply:
		return a.ack, a.err
	case <-ctx.Done():
		s.forget(reply)
		return nil, context.Cause(ctx)
	}
}

// forget gives up waiting for an answer. A request that is not yet written is
// still sent.
func (s *session) forget(reply chan answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for seq, ch := range s.calls {
		if ch == reply {
			delete(s.calls, seq)
		}
	}
	for i := range s.control {
		if s.control[i].reply == reply {
			s.control[i].reply = nil
		}
	}
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
