package session

import (
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
)

// piece is one stretch of what is to be sent. With records it holds any number of
// frames, or a body by reference; without, exactly one frame.
type piece struct {
	b      []byte
	pooled bool
	beat   bool // an empty record
	// Of the one frame, for connections whose wire repeats its header.
	kind              ccp.Type
	channel, sequence uint32
}

// byReference is the size from which a body is not copied into the queue.
const byReference = 8 << 10

// Push queues one delivery; see relay.Outbox.
func (s *Session) Push(d relay.Delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.ending.Load() {
		return false
	}
	var ok bool
	if s.caps.Has(ccp.Ack) {
		ok = s.pushDeliver(&d)
	} else {
		ok = s.appendFrame(d.Kind, d.Channel, s.nextDelivery(), d.Body, true)
	}
	if !ok {
		return false
	}
	s.position = max(s.position, d.Position)
	s.kick()
	return true
}

func (s *Session) pushDeliver(d *relay.Delivery) bool {
	n := ccp.DeliverLen(len(d.Device), len(d.User), len(d.Body))
	b := s.room(ccp.MaxHeader + n - len(d.Body) + inlineLen(d.Body))
	sequence := s.nextDelivery()
	if sequence == 0 {
		s.wrap()
		return false
	}
	var names [2 * ccp.MaxName]byte
	device := append(names[:0], d.Device...)
	user := append(names[ccp.MaxName:ccp.MaxName], d.User...)
	out, err := ccp.AppendHeader(*b, ccp.TypeDeliver, d.Channel, sequence, n)
	if err == nil {
		out, err = ccp.AppendDeliverHeader(out, ccp.Deliver{
			Kind: d.Kind, Flags: d.Flags, Position: d.Position, ID: d.ID, Time: d.Time,
			Device: device, User: user,
		})
	}
	if err != nil {
		s.srv.opt.Log.Error("delivery cannot be encoded", "device", s.device, "position", d.Position, "error", err)
		return false
	}
	s.put(b, out, d.Body, true)
	return true
}

// Control queues a frame that answers or informs; see relay.Outbox.
func (s *Session) Control(t ccp.Type, channel uint32, payload []byte) bool {
	s.mu.Lock()
	if s.closing || s.ending.Load() {
		s.mu.Unlock()
		return false
	}
	if s.control+len(payload) > s.srv.opt.Limits.Control {
		s.mu.Unlock()
		s.srv.opt.Metrics.Inc(metrics.SlowReceivers)
		s.cut("control_overflow")
		return false
	}
	var sequence uint32
	if t == ccp.TypeAck || t == ccp.TypeError {
		sequence = s.nextAnswer()
	} else {
		sequence = s.nextDelivery()
	}
	ok := s.appendFrame(t, channel, sequence, payload, false)
	if ok {
		s.control += len(payload) + ccp.MaxHeader
		s.kick()
	}
	s.mu.Unlock()
	return ok
}

// Media queues a droppable frame; see relay.Outbox. payload of a peer with ack is
// that of a Deliver, made by the relay.
func (s *Session) Media(t ccp.Type, channel uint32, payload []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.ending.Load() || !s.ready {
		return false
	}
	if s.queued+ccp.MaxHeader+len(payload) > s.srv.opt.Limits.Media {
		s.srv.opt.Metrics.Inc(metrics.MediaDropped)
		return false
	}
	if !s.appendFrame(t, channel, s.nextDelivery(), payload, true) {
		return false
	}
	s.kick()
	return true
}

func (s *Session) nextAnswer() uint32 {
	s.answers++
	return s.answers
}

func (s *Session) nextDelivery() uint32 {
	s.deliveries++
	return s.deliveries
}

// appendFrame queues a frame. Its payload is copied, unless it is large, may be kept
// (shared) and the peer has records. mu is held. false: the frame cannot be sent to
// this peer.
func (s *Session) appendFrame(t ccp.Type, channel, sequence uint32, payload []byte, shared bool) bool {
	if sequence == 0 { // the counter came round: ccp1.md 4.3 ends the connection
		s.wrap()
		return false
	}
	if !s.caps.Has(ccp.Records) {
		return s.appendUnit(t, channel, sequence, payload)
	}
	n := len(payload)
	if shared {
		n = inlineLen(payload)
	}
	b := s.room(ccp.MaxHeader + n)
	out, err := ccp.AppendHeader(*b, t, channel, sequence, len(payload))
	if err != nil {
		return false
	}
	s.put(b, out, payload, shared)
	return true
}

// wrap ends a connection whose sequence numbers are used up. mu is held.
func (s *Session) wrap() {
	s.note("sequence")
	s.end()
	_ = s.conn.Close()
}

// appendUnit queues one frame as a piece of its own.
func (s *Session) appendUnit(t ccp.Type, channel, sequence uint32, payload []byte) bool {
	n, err := ccp.EncodedLen(t, channel, sequence, len(payload))
	if err != nil || (s.mode != modeClear && n > ccp.MaxRecordFrame) {
		return false
	}
	// A small one has just what it needs: what waits counts by the memory it holds.
	pooled := n > ownBuf
	var b []byte
	if pooled {
		b = s.srv.pool.get(n)
	} else {
		b = make([]byte, 0, n)
	}
	b, err = ccp.AppendHeader(b, t, channel, sequence, len(payload))
	if err != nil {
		return false
	}
	b = append(b, payload...)
	s.queue = append(s.queue, piece{b: b, pooled: pooled, kind: t, channel: channel, sequence: sequence})
	s.queued += cap(b)
	s.frames++
	return true
}

// room is the buffer at the end of the queue, with n bytes free at least. The
// pointer is good until the queue next changes.
func (s *Session) room(n int) *[]byte {
	if k := len(s.queue); k > 0 {
		p := &s.queue[k-1]
		if p.pooled && cap(p.b)-len(p.b) >= n {
			return &p.b
		}
		if p.pooled && cap(p.b) < midBuf && len(p.b)+n <= midBuf {
			s.queued += midBuf - cap(p.b)
			p.b = s.srv.pool.grow(p.b, midBuf)
			return &p.b
		}
	}
	b := s.srv.pool.get(n)
	s.queued += cap(b)
	s.queue = append(s.queue, piece{b: b, pooled: true})
	return &s.queue[len(s.queue)-1].b
}

func inlineLen(body []byte) int {
	if len(body) >= byReference {
		return 0
	}
	return len(body)
}

// put ends a frame whose head is out, with its body copied or by reference.
func (s *Session) put(b *[]byte, out, body []byte, shared bool) {
	s.frames++
	if !shared || len(body) < byReference {
		*b = append(out, body...)
		return
	}
	*b = out
	s.queued += len(body)
	s.queue = append(s.queue, piece{b: body})
}

// dropQueue forgets what is queued; mu is held.
func (s *Session) dropQueue() {
	for _, p := range s.queue {
		if p.pooled {
			s.srv.pool.put(p.b)
		}
	}
	s.queue, s.queued, s.control, s.frames = nil, 0, 0, 0
}
