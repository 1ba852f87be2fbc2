package relay

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// Link joins one live session to the relay. Handle is for one goroutine;
// everything else may be called concurrently.
type Link struct {
	h       *Hub
	box     Outbox
	device  string
	user    string
	caps    ccp.Capabilities
	ack     bool // peer speaks Send, Deliver, Done
	records bool
	plain   bool // legacy plaintext mode
	fence   uint64
	cursor  uint64
	sender  *sender
	ownLog  [8]byte // log of messages without an id of the peer's

	ctx    context.Context
	cancel context.CancelFunc
	gone   atomic.Bool

	in  inbound
	out outbound

	// Of the goroutine that calls Handle, or of the worker while it runs.
	send    ccp.Send
	counter uint64
	routes  map[string]*route
	key     []byte
}

// inbound is what the device sends.
type inbound struct {
	mu       sync.Mutex
	room     sync.Cond // only ever Broadcast: reader and worker wait on it at once
	logs     []*outLog
	acks     []plainAck // to old peers, in order of completion
	inflight int
	bytes    int
	rows     int
	touched  bool // an acknowledgement waits to be sent
	payload  []byte

	// Frames that had to wait for storage, and those behind them.
	later      []ccp.Frame
	laterBytes int
	working    bool
}

type plainAck struct {
	channel, seq uint32
	extras       []ccp.Member
}

const (
	laterFrames = 64
	laterBytes  = 256 << 10
	windowRows  = 8192
	maxRoutes   = 64
)

// Fence is the number of the device's route claim.
func (l *Link) Fence() uint64 { return l.fence }

// Cursor is the position behind which delivery starts.
func (l *Link) Cursor() uint64 { return l.cursor }

// Logs is what the Ack's resume.logs tells: which Sends are done.
func (l *Link) Logs() []LogState { return l.sender.states() }

// Start begins delivery. The session calls it once, after its Ack has been
// queued, so that no message overtakes the Ack.
func (l *Link) Start() {
	l.out.mu.Lock()
	l.out.started = true
	l.drainIfOpen()
	l.out.mu.Unlock()
}

// Handle takes one frame of the established session, in order of arrival; the
// payload is valid during the call only. It waits for nothing but room in the
// session's window of messages that are not done. Errors wrap ErrFatal or
// ErrClosed, and the session must end; everything else has been answered to the
// peer as an Error frame.
func (l *Link) Handle(f ccp.Frame) error {
	if l.gone.Load() {
		return ErrClosed
	}
	switch f.Type {
	case ccp.TypeDone:
		return l.handleDone(f.Payload)
	case ccp.TypePad, ccp.TypeAck, ccp.TypeError, ccp.TypeHello, ccp.TypeAuth:
		return nil
	}
	l.in.mu.Lock()
	busy := l.in.working
	l.in.mu.Unlock()
	if !busy {
		err := l.dispatch(l.ctx, f, false)
		if !errors.Is(err, errSlow) {
			return l.answer(f, err)
		}
	}
	return l.postpone(f)
}

// errSlow says that a frame needs storage and nothing has been done yet.
var errSlow = errors.New("relay: needs storage")

// postpone hands a frame, and all that follow while it is being handled, to a
// goroutine that may wait for storage.
func (l *Link) postpone(f ccp.Frame) error {
	in := &l.in
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.later) > 0 && (len(in.later) >= laterFrames || in.laterBytes+len(f.Payload) > laterBytes) && !l.gone.Load() {
		in.room.Wait()
	}
	if l.gone.Load() {
		return ErrClosed
	}
	f.Payload = append([]byte(nil), f.Payload...)
	in.later = append(in.later, f)
	in.laterBytes += len(f.Payload)
	if !in.working {
		in.working = true
		go l.work()
	}
	return nil
}

func (l *Link) work() {
	in := &l.in
	for {
		in.mu.Lock()
		if len(in.later) == 0 || l.gone.Load() {
			in.working = false
			in.later, in.laterBytes = nil, 0
			in.room.Broadcast()
			in.mu.Unlock()
			return
		}
		f := in.later[0]
		in.mu.Unlock()

		if err := l.answer(f, l.dispatch(l.ctx, f, true)); err != nil {
			l.box.Close(ccp.CodeDecode)
			l.Detach()
		}

		in.mu.Lock()
		if len(in.later) > 0 {
			in.later[0] = ccp.Frame{}
			in.later = in.later[1:]
			in.laterBytes -= len(f.Payload)
		}
		in.room.Broadcast()
		in.mu.Unlock()
	}
}

// dispatch handles one frame; with io false it answers errSlow, having done
// nothing, where storage would have to be asked.
func (l *Link) dispatch(ctx context.Context, f ccp.Frame, io bool) error {
	switch f.Type {
	case ccp.TypeSend:
		if !l.ack {
			return fmt.Errorf("%w: send without ack", ErrFatal)
		}
		return l.handleSend(ctx, f, io)
	case ccp.TypeMsg, ccp.TypeTyping, ccp.TypeKeyUpdate, ccp.TypeGroupEvent, ccp.TypeVoiceFrame, ccp.TypeVideoFrame,
		ccp.TypeCallOffer, ccp.TypeCallAnswer, ccp.TypeCallEnd, ccp.TypeCallStats, ccp.TypeTransportUpdate:
		return l.handlePlain(ctx, f, io)
	case ccp.TypePresence:
		return l.handlePresence(f)
	}
	if !io {
		return errSlow
	}
	switch f.Type {
	case ccp.TypeJoin:
		return l.handleJoin(ctx, f)
	case ccp.TypeLeave:
		return l.handleLeave(ctx, f)
	case ccp.TypeGroupCreate:
		return l.handleGroupCreate(ctx, f)
	case ccp.TypeGroupInvite:
		return l.handleGroupInvite(ctx, f)
	}
	return fmt.Errorf("%w: frame type %s", ErrFatal, f.Type)
}

// answer turns a refusal into an Error frame; the session goes on.
func (l *Link) answer(f ccp.Frame, err error) error {
	if err == nil || errors.Is(err, ErrFatal) || errors.Is(err, ErrClosed) {
		return err
	}
	body := ccp.ErrorBody{Ack: f.Sequence}
	if f.Type == ccp.TypeSend {
		body.ID = l.send.ID
	}
	var r *refusal
	switch {
	case errors.As(err, &r):
		body.Error, body.Detail = r.code, r.detail
	case l.ctx.Err() != nil:
		return ErrClosed
	default:
		l.h.log.Warn("frame", "type", f.Type.String(), "device", l.device, "error", err)
		body.Error, body.RetryMS = ccp.CodeUnavailable, retryMS
		if f.Type == ccp.TypeSend {
			// What follows of this log waits for the repetition.
			l.stall(l.send.ID)
		}
	}
	l.h.metrics.Refused(body.Error)
	l.box.Control(ccp.TypeError, f.Channel, body.Marshal())
	return nil
}

// retryMS is what the sender waits after a passing failure.
const retryMS = 1000

// Detach ends the link. It is idempotent and touches nothing of a newer link of
// the same device.
func (l *Link) Detach() {
	if l.gone.Swap(true) {
		return
	}
	l.cancel()
	l.in.mu.Lock()
	l.in.room.Broadcast()
	l.in.mu.Unlock()
	ours := l.h.remove(l)
	l.endOutbound()
	l.h.senders.release(l.sender)
	l.h.upkeep.detached(l, ours)
}

// replaced ends the link in favour of a newer one of the same device.
func (l *Link) replaced() {
	l.box.Close(ccp.CodeReplaced)
	l.Detach()
}

// sessionLog is the log of messages that come without an id: first 8 bytes of
// H(session). Sessions of peers with ack can be resumed on a new connection, whose
// counter begins anew: there the fence makes the log its own.
func sessionLog(session string, resumable bool, fence uint64) (log [8]byte) {
	b := []byte(session)
	if resumable {
		b = binary.BigEndian.AppendUint64(append(b, 0), fence)
	}
	sum := sha256.Sum256(b)
	copy(log[:], sum[:])
	return log
}

// wait blocks until a message of size bytes and n rows fits the window.
func (l *Link) wait(size, n int) error {
	in, lim := &l.in, &l.h.opt.Limits
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.inflight > 0 && !l.gone.Load() &&
		(in.inflight >= lim.Window || in.bytes+size > lim.WindowBytes || in.rows+n > windowRows || l.h.pending.Load() > lim.PendingBytes) {
		in.room.Wait()
	}
	if l.gone.Load() {
		return ErrClosed
	}
	in.inflight++
	in.bytes += size
	in.rows += n
	l.h.pending.Add(int64(size))
	return nil
}

// leaveWindow gives the room of a message back. in.mu is held.
func (l *Link) leaveWindow(size, n int) {
	l.in.inflight--
	l.in.bytes -= size
	l.in.rows -= n
	l.h.pending.Add(-int64(size))
	l.in.room.Broadcast()
}

// outLog finds the session's state of a log. in.mu is held.
func (l *Link) outLog(log [8]byte, now time.Time) *outLog {
	s := l.sender
	s.mu.Lock()
	sent := s.find(log, now)
	s.mu.Unlock()
	for i, o := range l.in.logs {
		if o.log != log {
			continue
		}
		o.sent = sent
		if i > 0 { // the longest unused is the last
			copy(l.in.logs[1:i+1], l.in.logs[:i])
			l.in.logs[0] = o
		}
		return o
	}
	o := &outLog{log: log, sent: sent}
	if len(l.in.logs) == 2*maxLogs {
		l.in.logs = l.in.logs[:2*maxLogs-1]
	}
	l.in.logs = append([]*outLog{o}, l.in.logs...)
	return o
}
