package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// The send queue of a peer without ack is looked at first 1 s after a write, and
// then at doubling distances while rows wait.
const (
	unsentFirst = time.Second
	unsentMost  = 30 * time.Second
)

// progressRate is what a begun frame must advance, in bytes a second.
const progressRate = 1 << 10

// timer is the one timer of a session. It is lazy: reads and writes only note the
// time, and when the timer fires it works out what is due and when to fire next.
type timer struct {
	s     *Session
	mu    sync.Mutex
	t     *time.Timer
	due   time.Duration // when t fires
	ended bool

	// Moments since the server began.
	lastRead, lastWrite atomic.Int64
	writing             atomic.Int64 // since when a write runs, 0: none
	begun               atomic.Int64 // since when the window of a begun frame runs, 0: none
	got                 atomic.Int64 // bytes in that window
	endAt               atomic.Int64 // when a closing session is cut
	busy                atomic.Bool  // the reader waits for the relay, not for the peer
	keeping             atomic.Bool  // housekeeping runs

	keep   time.Duration // keep-alive, drawn per session
	touch  time.Duration // when the token is next renewed
	unsent time.Duration // next look at the send queue, 0: none
	again  time.Duration // its distance
}

// now is never 0, which means "none" in the moments below.
func (c *timer) now() time.Duration { return time.Since(c.s.srv.began) + 1 }

func (c *timer) begin() {
	s := c.s
	l := &s.srv.opt.Limits
	c.keep = l.Keepalive - rand.N(l.Keepalive/8+1)
	now := c.now()
	c.lastRead.Store(int64(now))
	c.lastWrite.Store(int64(now))
	c.touch = now + s.srv.opt.Accounts.TokenTTL()/3
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = now + c.keep
	c.t = time.AfterFunc(c.keep, c.fire)
}

func (c *timer) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.t != nil {
		c.t.Stop()
	}
}

// arm makes the timer fire after d at the latest.
func (c *timer) arm(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.t == nil || c.ended {
		return
	}
	now := c.now()
	if d == unsentFirst && c.unsent == 0 {
		c.unsent, c.again = now+d, 2*d
	}
	if at := now + d; at < c.due {
		c.due = at
		c.t.Reset(d)
	}
}

// endIn sets when a closing session is cut, and answers d.
func (c *timer) endIn(d time.Duration) time.Duration {
	c.endAt.CompareAndSwap(0, int64(c.now()+d))
	return d
}

func (c *timer) readNow() { c.lastRead.Store(int64(c.now())) }

func (c *timer) writeBegins() { c.writing.Store(int64(c.now())) }

func (c *timer) writeEnds() {
	c.writing.Store(0)
	c.lastWrite.Store(int64(c.now()))
}

// partial notes whether a frame is begun and not whole, and that n bytes came.
func (c *timer) partial(waiting bool, n int) {
	switch {
	case !waiting:
		c.begun.Store(0)
	case c.begun.Load() == 0:
		c.got.Store(0)
		c.begun.Store(int64(c.now()))
	default:
		c.got.Add(int64(n))
	}
}

// fire does what is due. It runs on a goroutine of its own.
func (c *timer) fire() {
	now := c.now()
	next := now + 2*c.keep
	soon := func(at time.Duration) {
		if at < next {
			next = at
		}
	}
	if c.closes(now, soon) || c.stalls(now, soon) || c.silent(now, soon) {
		return
	}
	c.beat(now, soon)
	c.proof(now, soon)
	c.mu.Lock()
	if !c.ended {
		c.due = next
		c.t.Reset(max(next-now, time.Millisecond))
	}
	c.mu.Unlock()
	c.housekeep(now)
}

// closes cuts a session whose farewell is over.
func (c *timer) closes(now time.Duration, soon func(time.Duration)) bool {
	if !c.s.ending.Load() {
		return false
	}
	c.endIn(c.s.srv.opt.Limits.Farewell) // ended before the timer began
	at := time.Duration(c.endAt.Load())
	if now < at {
		soon(at)
		return false
	}
	c.kill("farewell")
	return true
}

// kill ends the connection and wakes a reader that waits for the relay.
func (c *timer) kill(reason string) {
	c.s.cut(reason)
	c.s.link.Detach()
}

// stalls cuts a session whose write or begun frame does not advance.
func (c *timer) stalls(now time.Duration, soon func(time.Duration)) bool {
	l := &c.s.srv.opt.Limits
	if since := time.Duration(c.writing.Load()); since != 0 {
		if now >= since+l.WriteStall {
			c.kill("stalled")
			return true
		}
		soon(since + l.WriteStall)
	}
	since := time.Duration(c.begun.Load())
	if since == 0 || c.busy.Load() {
		return false
	}
	if now < since+l.Progress {
		soon(since + l.Progress)
		return false
	}
	if c.got.Load() < int64(l.Progress/time.Second)*progressRate {
		c.kill("slow_frame")
		return true
	}
	c.got.Store(0)
	c.begun.CompareAndSwap(int64(since), int64(now))
	soon(now + l.Progress)
	return false
}

// silent cuts a session whose peer, which sends keep-alives, has gone.
func (c *timer) silent(now time.Duration, soon func(time.Duration)) bool {
	if !c.s.caps.Has(ccp.ProofBinding) {
		return false
	}
	if c.busy.Load() {
		c.lastRead.Store(int64(now))
	}
	at := time.Duration(c.lastRead.Load()) + c.s.srv.opt.Limits.Dead
	if now >= at {
		c.kill("silent")
		return true
	}
	soon(at)
	return false
}

// echo answers a peer's keep-alive on an idle connection: both are done in one
// wake-up, which is most of what an idle session costs.
func (c *timer) echo() {
	if c.now()-time.Duration(c.lastWrite.Load()) >= c.keep/2 {
		c.s.keepAlive()
	}
}

// beat sends an empty record on an idle connection. It leaves peers that send
// keep-alives a quarter more time to be the first.
func (c *timer) beat(now time.Duration, soon func(time.Duration)) {
	keep := c.keep
	if c.s.caps.Has(ccp.ProofBinding) {
		keep += keep / 4
	}
	at := time.Duration(c.lastWrite.Load()) + keep
	if now >= at {
		c.s.keepAlive()
		at = now + keep
	}
	soon(at)
}

// proof looks whether the kernel has everything acknowledged that was written to a
// peer without ack.
func (c *timer) proof(now time.Duration, soon func(time.Duration)) {
	c.mu.Lock()
	at := c.unsent
	c.mu.Unlock()
	if at == 0 {
		return
	}
	if now < at {
		soon(at)
		return
	}
	written := c.s.written.Load()
	left, known := c.s.ticket.Unsent()
	if known && left == 0 && c.writing.Load() == 0 && c.s.written.Load() == written {
		c.s.prove()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !known || c.s.proven.Load() >= c.s.written.Load() {
		c.unsent, c.again = 0, 0
		return
	}
	c.unsent = now + c.again
	c.again = min(2*c.again, unsentMost)
	soon(c.unsent)
}

// housekeep renews the token and the certificate of a long session. It may wait
// for storage; a second run meanwhile does nothing.
func (c *timer) housekeep(now time.Duration) {
	s := c.s
	if s.ending.Load() || !c.keeping.CompareAndSwap(false, true) {
		return
	}
	defer c.keeping.Store(false)
	touch := now >= c.touch
	renew := s.caps.Has(ccp.ProofBinding) && !s.srv.opt.Clock().Before(s.certDue)
	if !touch && !renew {
		return
	}
	ctx, cancel := context.WithTimeout(s.srv.ctx, ioTime)
	defer cancel()
	if touch {
		c.touch = now + s.srv.opt.Accounts.TokenTTL()/3
		err := s.srv.opt.Accounts.TouchToken(ctx, s.token)
		if errors.Is(err, account.ErrRevoked) {
			s.Close(ccp.CodeRevoked)
			return
		}
		if err != nil && !errors.Is(err, account.ErrToken) {
			s.srv.opt.Log.Warn("token not renewed", "device", s.device, "error", err)
			c.touch = now + s.srv.opt.Accounts.TokenTTL()/12
		}
	}
	if renew {
		s.renewCertificate(ctx)
	}
}

// renewCertificate sends a fresh certificate during the session.
func (s *Session) renewCertificate(ctx context.Context) {
	s.certDue = s.srv.opt.Clock().Add(time.Hour) // the next try, if this one fails
	cert, _, err := s.srv.opt.Accounts.RenewCertificate(ctx, s.device)
	if errors.Is(err, account.ErrRevoked) {
		s.Close(ccp.CodeRevoked)
		return
	}
	if err != nil {
		s.srv.opt.Log.Warn("certificate not renewed", "device", s.device, "error", err)
		return
	}
	raw, err := cert.MarshalJSON()
	if err != nil {
		return
	}
	payload := ccp.AppendObject(nil, ccp.Member{Key: "certificate", Value: raw}, ccp.Text("type", "certificate-renewed"))
	if s.Control(ccp.TypeKeyUpdate, s.srv.opt.NotifyChannel, payload) {
		s.certDue = account.CertificateDue(cert)
	}
}

// keepAlive queues an empty record. Clear frames have no such thing, and the
// reference's SSE and NDJSON forms have their own.
func (s *Session) keepAlive() {
	if _, framed := s.conn.(transport.FrameWriter); framed {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mode == modeClear || s.closing || s.closed || len(s.queue) > 0 {
		return
	}
	s.queue = append(s.queue, piece{beat: true})
	s.kick()
}
