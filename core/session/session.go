package session

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/admission"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
)

// mode is the form of the data phase.
type mode uint8

const (
	modeRecords   mode = iota // Noise records
	modeUndecided             // records until the first upstream bytes say otherwise
	modeClear                 // clear frames, both ways
)

// idleRead is how many bytes an idle session waits with.
const idleRead = 64

// Session is one established session. It implements relay.Outbox.
type Session struct {
	srv       *Server
	conn      net.Conn
	link      Link
	ticket    *admission.Ticket
	transport string

	device string
	user   ccp.User
	id     string
	public [32]byte
	caps   ccp.Capabilities
	fence  atomic.Uint64
	token  account.TokenHash
	resume ticket
	spent  string // key of the token this session was resumed with; reader only

	// Of the reader.
	recv       *noise.Opener
	early      []byte // bytes that came behind the handshake
	earlyPlain []byte // plaintext behind the Confirm
	tiny       [idleRead]byte

	// Of the outbox.
	mu         sync.Mutex
	mode       mode
	queue      []piece
	frames     int // frames in queue
	queued     int // bytes that queue holds on to: whole buffers, and bodies by reference
	control    int // of them, control frames
	position   uint64
	answers    uint32
	deliveries uint32
	ready      bool // the Ack is out
	writing    bool // a writer goroutine runs
	closing    bool // an Error frame is the last thing queued
	closed     bool
	send       *noise.Sealer

	written atomic.Uint64 // highest position whose write has succeeded
	proven  atomic.Uint64 // highest position told to Link.Alive

	// Of the timer; times are nanoseconds of the monotonic clock since srv began.
	clock      timer
	certDue    time.Time
	dropResume atomic.Bool
	replaced   atomic.Bool
	ending     atomic.Bool
	stop       chan struct{} // closed with ending
	reason     atomic.Pointer[string]
}

var (
	_ relay.Outbox   = (*Session)(nil)
	_ relay.Plain    = (*Session)(nil)
	_ relay.Profiled = (*Session)(nil)
)

// Device is the id of the device.
func (s *Session) Device() string { return s.device }

// User is the id of the account.
func (s *Session) User() string { return s.user.ID }

// Session is the public id.
func (s *Session) Session() string { return s.id }

// Fence is the number of the route claim; 0 before the relay has made it.
func (s *Session) Fence() uint64 { return s.fence.Load() }

// Capabilities are what was accepted for this connection.
func (s *Session) Capabilities() ccp.Capabilities { return s.caps }

// Plain says that the peer is served clear frames.
func (s *Session) Plain() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mode == modeClear
}

// Profile is the user as presence shows it.
func (s *Session) Profile() []byte { return s.user.AppendJSON(nil) }

// start opens the outbox, the gauge and the timer. The Ack is on its way.
func (s *Session) start() {
	m := s.srv.opt.Metrics
	m.Move(metrics.ConnectionsActive, 1)
	m.MoveLabel(metrics.Sessions, s.transport, 1)
	s.clock.begin()
	s.mu.Lock()
	s.ready = true
	s.kick()
	s.mu.Unlock()
	s.link.Start()
}

// run is the reader: it returns when the connection is over and everything about
// it has been undone.
func (s *Session) run() {
	reason := s.read()
	if r := s.reason.Load(); r != nil {
		reason = *r
	}
	s.finish(reason)
}

// discard undoes a session that never started.
func (s *Session) discard() {
	s.srv.unregister(s)
	s.shut()
	if s.link != nil {
		s.link.Detach()
	}
}

// finish ends a started session; it runs once, on the reader's goroutine.
func (s *Session) finish(reason string) {
	s.clock.stop()
	s.shut()
	_ = s.conn.Close()
	s.link.Detach()
	s.srv.unregister(s)
	s.release()
	m := s.srv.opt.Metrics
	m.Move(metrics.ConnectionsActive, -1)
	m.MoveLabel(metrics.Sessions, s.transport, -1)
	m.Count(metrics.SessionsEnded, reason)
	s.srv.opt.Log.Debug("session ended", "reason", reason, "device", s.device, "transport", s.transport)
}

// shut refuses everything from now on and drops what is queued.
func (s *Session) shut() {
	s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.dropQueue()
}

// Close sends an Error frame with the code and ends the session. It returns at
// once; what was queued before goes out first, within the farewell time.
func (s *Session) Close(code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.closed {
		return
	}
	s.closing = true
	s.note(code)
	switch code {
	case ccp.CodeRevoked, ccp.CodeKeyMismatch:
		s.dropResume.Store(true)
	case ccp.CodeReplaced:
		s.replaced.Store(true)
		s.srv.opt.Metrics.Inc(metrics.SessionsReplaced)
	}
	s.srv.opt.Metrics.Count(metrics.Errors, code)
	s.appendFrame(ccp.TypeError, 0, s.nextAnswer(), ccp.ErrorBody{Error: code}.Marshal(), false)
	s.end()
	s.kick()
	s.clock.arm(s.clock.endIn(s.srv.opt.Limits.Farewell))
}

// cut ends the session without a word.
func (s *Session) cut(reason string) {
	s.note(reason)
	s.end()
	_ = s.conn.Close()
}

// end makes the reader stop taking frames, also one that waits for a slot.
func (s *Session) end() {
	if !s.ending.Swap(true) {
		close(s.stop)
	}
}

// note keeps the first reason.
func (s *Session) note(reason string) { s.reason.CompareAndSwap(nil, &reason) }

// bid closes the connection after the last frame was written: half-close where the
// transport can, so that the frame is not taken back by a reset; the reader sees
// the end, or the farewell time does.
func (s *Session) bid() {
	if transport.CloseWrite(s.conn) != nil {
		_ = s.conn.Close()
	}
}
