package session

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"math/rand/v2"

	"github.com/commucat/commucat/core/admission"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
)

// stage says how far a handshake has come; it decides how a failure is shown.
type stage uint8

const (
	stageHello    stage = iota // nothing verified: a stranger
	stageVerified              // Noise message 1 opened, static proof checked
	stageRecords               // the last handshake message is done, ciphers exist
)

// opening is one connection on its way to a Session.
type opening struct {
	srv    *Server
	conn   net.Conn
	facts  transport.Facts
	ticket *admission.Ticket
	start  time.Time

	// Bytes read and not yet used are buf[off:]; total counts all that came.
	buf      []byte
	off      int
	total    int
	reserved int

	over     atomic.Bool // deadline or shutdown
	answered atomic.Bool // something was written
	handed   atomic.Bool // the connection is the session's
	stage    stage

	framed   bool // a whole Hello frame came
	hello    ccp.Hello
	digest   []byte // Hello payload, kept for its digest
	channel  uint32
	version  uint16
	accepted ccp.Capabilities
	entered  bool
	key      ServerKey
	hs       *noise.Handshake
	kem      []byte // ciphertext for the Auth frame
	session  string // public id
	token    string // bearer token of peers without proof-binding
	newUser  string
	send     *noise.Sealer
	recv     *noise.Opener
	plain    []byte // plaintext behind the Confirm
}

func newOpening(s *Server, conn net.Conn) *opening {
	f := transport.FactsOf(conn)
	return &opening{srv: s, conn: conn, facts: f, ticket: admission.FromContext(f.Context), start: time.Now(), entered: f.Entered}
}

// refusal ends a handshake. reason is for logs and metrics; code, if the peer may
// know it, goes out in a record.
type refusal struct {
	reason string // label of metrics.Handshakes
	code   string
	detail string // log only
	pair   bool   // pairing would help
	err    error
}

func (r *refusal) Error() string {
	s := r.reason
	if r.detail != "" {
		s += ": " + r.detail
	}
	if r.err != nil {
		s += ": " + r.err.Error()
	}
	return s
}

func (r *refusal) Unwrap() error { return r.err }

func malformed(detail string, err error) *refusal {
	return &refusal{reason: "malformed", code: ccp.CodeHandshake, detail: detail, err: err}
}

func refused(code, detail string, err error) *refusal {
	return &refusal{reason: "refused", code: code, detail: detail, err: err}
}

// deadline is when the handshake must be over: admission's, or 10 s ± 10 %.
func (o *opening) deadline() time.Duration {
	if t := o.ticket.Deadline(); !t.IsZero() {
		return time.Until(t)
	}
	d := o.srv.opt.Limits.Handshake
	return d - d/10 + rand.N(d/5+1)
}

// run does the handshake and answers the session, or nil when it failed.
func (o *opening) run() *Session {
	ctx, cancel := context.WithCancel(o.facts.Context)
	defer cancel()
	timer := time.AfterFunc(o.deadline(), func() { cancel(); o.abort() })
	o.buf = o.srv.pool.get(smallBuf)
	ses, err := o.handshake(ctx)
	if err != nil {
		// The deadline stays armed: it also ends a farewell that nobody reads.
		o.fail(ctx, err)
	}
	timer.Stop()
	o.srv.pool.put(o.buf)
	o.buf = nil
	o.ticket.Free(o.reserved)
	if err != nil {
		return nil
	}
	return ses
}

// abort ends a handshake from outside; it comes too late for one that is done.
func (o *opening) abort() {
	if o.handed.Load() {
		return
	}
	o.over.Store(true)
	if !o.answered.Load() {
		if w, ok := o.conn.(transport.Withheld); ok {
			w.Refuse()
		}
	}
	_ = o.conn.Close()
}

func (o *opening) handshake(ctx context.Context) (*Session, error) {
	if err := o.readHello(); err != nil {
		return nil, err
	}
	if err := o.answer(ctx); err != nil {
		return nil, err
	}
	if err := o.finish(ctx); err != nil {
		return nil, err
	}
	if o.accepted.Has(ccp.ProofBinding) {
		return o.confirm(ctx)
	}
	return o.compat(ctx)
}

// room is how many bytes the peer may still send before establishment.
func (o *opening) room() int { return o.srv.opt.Limits.PreAuth - o.total }

// fill reads more. It never reads past the limit, so a peer that sends on meets
// back-pressure and then the deadline.
func (o *opening) fill() error {
	if o.room() <= 0 {
		return malformed("more than the limit before authentication", nil)
	}
	if o.off > 0 && len(o.buf) == cap(o.buf) {
		o.buf = o.buf[:copy(o.buf, o.buf[o.off:])]
		o.off = 0
	}
	if len(o.buf) == cap(o.buf) {
		if err := o.ticket.Reserve(cap(o.buf)); err != nil {
			return &refusal{reason: "busy", code: ccp.CodeHandshake, err: err}
		}
		o.reserved += cap(o.buf)
		o.buf = o.srv.pool.grow(o.buf, len(o.buf)+1)
	}
	end := min(cap(o.buf), len(o.buf)+o.room())
	n, err := o.conn.Read(o.buf[len(o.buf):end])
	o.buf = o.buf[:len(o.buf)+n]
	o.total += n
	if n > 0 {
		return nil
	}
	if o.over.Load() {
		return &refusal{reason: "timeout", err: err}
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return &refusal{reason: "malformed", detail: "closed by the peer", err: err}
	}
	return &refusal{reason: "malformed", detail: "read", err: err}
}

// frame reads one clear frame; its payload is valid until the next read.
func (o *opening) frame(want ccp.Type) (ccp.Frame, error) {
	for {
		in := o.buf[o.off:]
		if size, err := ccp.Size(in); err == nil && size > len(in)+o.room() {
			return ccp.Frame{}, malformed("frame over the limit before authentication", nil)
		}
		f, n, err := ccp.Decode(in)
		switch {
		case err == nil && f.Type != want:
			return f, malformed("frame "+f.Type.String()+" out of turn", nil)
		case err == nil:
			o.off += n
			return f, nil
		case !errors.Is(err, ccp.ErrIncomplete):
			return ccp.Frame{}, &refusal{reason: "malformed", code: ccp.CodeHandshake, detail: "decode", err: err}
		}
		if err := o.fill(); err != nil {
			return ccp.Frame{}, err
		}
	}
}

// writeClear sends one clear frame.
func (o *opening) writeClear(t ccp.Type, channel, sequence uint32, payload []byte) error {
	b, err := ccp.Append(o.srv.pool.get(len(payload)+ccp.MaxHeader), ccp.Frame{Type: t, Channel: channel, Sequence: sequence, Payload: payload})
	if err != nil {
		return err
	}
	defer o.srv.pool.put(b)
	return o.write(t, channel, sequence, b)
}

// write sends one unit: a clear frame, or the record that holds it.
func (o *opening) write(t ccp.Type, channel, sequence uint32, unit []byte) error {
	if o.over.Load() {
		return &refusal{reason: "timeout"}
	}
	o.answered.Store(true)
	o.srv.count(metrics.FramesEgress, 1)
	var err error
	if fw, ok := o.conn.(transport.FrameWriter); ok {
		err = fw.WriteFrame(t.String(), channel, sequence, unit)
	} else {
		_, err = o.conn.Write(unit)
	}
	if err != nil {
		return &refusal{reason: "malformed", detail: "write", err: err}
	}
	return nil
}

// keyWork waits for a turn at public-key work and runs f. The gate charges its time.
func (o *opening) keyWork(ctx context.Context, f func() error) error {
	g := o.srv.opt.Gate
	if g == nil {
		return f()
	}
	var rank admission.Rank
	if o.stage > stageHello {
		rank |= admission.Begun
	}
	if o.entered {
		rank |= admission.Entered
	}
	done, err := g.KeyWork(ctx, o.ticket, rank)
	if err != nil {
		return &refusal{reason: "busy", code: ccp.CodeHandshake, err: err}
	}
	defer done()
	return f()
}
