package session

import (
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
)

// keepPieces is how long an idle session's queue may stay allocated.
const keepPieces = 4

// kick starts the writer if something is queued and none runs; mu is held.
func (s *Session) kick() {
	if s.writing || s.closed || !s.ready || len(s.queue) == 0 {
		return
	}
	s.writing = true
	go s.write()
}

// write sends what is queued, batch after batch, and ends. While one batch is on
// its way the next gathers.
func (s *Session) write() {
	var spare []piece
	for {
		s.mu.Lock()
		if s.closed || len(s.queue) == 0 {
			s.writing = false
			if cap(s.queue) > keepPieces && len(s.queue) == 0 {
				s.queue = nil
			}
			last := s.closing && !s.closed
			s.mu.Unlock()
			if last {
				s.bid()
			}
			return
		}
		batch, position, m, frames := s.queue, s.position, s.mode, s.frames
		s.queue, s.queued, s.control, s.frames = spare[:0], 0, 0, 0
		s.mu.Unlock()

		s.clock.writeBegins()
		err := s.sendBatch(batch, m)
		for i := range batch {
			if batch[i].pooled {
				s.srv.pool.put(batch[i].b)
			}
			batch[i] = piece{}
		}
		spare = batch
		if err != nil {
			s.cut("write")
			s.shut()
			return
		}
		s.clock.writeEnds()
		s.srv.count(metrics.FramesEgress, frames)
		if position > s.written.Load() {
			s.written.Store(position)
			if !s.caps.Has(ccp.Ack) {
				s.clock.arm(unsentFirst)
			}
		}
	}
}

// sendBatch seals a batch and writes it, in pieces of about 64 KiB.
func (s *Session) sendBatch(batch []piece, m mode) error {
	if !s.caps.Has(ccp.Records) {
		return s.sendUnits(batch, m)
	}
	total := 0
	for i := range batch {
		total += noise.SealedSize(len(batch[i].b), 0) // an empty record for a beat
	}
	out := s.srv.pool.get(min(total, largeBuf))
	defer func() { s.srv.pool.put(out) }()
	var err error
	for i := range batch {
		for rest := batch[i].b; len(rest) > 0; {
			n := min(len(rest), 3*(noise.DefaultRecord-noise.Overhead))
			if len(out) > 0 && len(out)+noise.SealedSize(n, 0) > cap(out) {
				if err := s.flush(out); err != nil {
					return err
				}
				out = out[:0]
			}
			if out, err = s.send.AppendRecords(out, rest[:n], 0); err != nil {
				return err
			}
			rest = rest[n:]
		}
		if batch[i].beat {
			if out, err = s.send.AppendRecords(out, nil, 0); err != nil {
				return err
			}
		}
	}
	s.srv.opt.Metrics.Observe(metrics.WriteBatchBytes, float64(total))
	return s.flush(out)
}

// sendUnits writes one frame at a time, each in a record of its own or clear.
func (s *Session) sendUnits(batch []piece, m mode) error {
	fw, framed := s.conn.(transport.FrameWriter)
	out := s.srv.pool.get(midBuf)
	defer func() { s.srv.pool.put(out) }()
	for i := range batch {
		p := &batch[i]
		unit := p.b
		if m != modeClear {
			need := len(p.b) + noise.Overhead + 3
			if len(out)+need > cap(out) {
				if err := s.flush(out); err != nil {
					return err
				}
				s.srv.pool.put(out)
				out = s.srv.pool.get(max(need, midBuf))
			}
			from := len(out)
			var err error
			if out, err = s.send.AppendRecord(out, p.b); err != nil {
				return err
			}
			unit = out[from:]
		}
		switch {
		case framed:
			if err := fw.WriteFrame(p.kind.String(), p.channel, p.sequence, unit); err != nil {
				return err
			}
			out = out[:0]
		case m == modeClear:
			if err := s.flush(unit); err != nil {
				return err
			}
		}
	}
	return s.flush(out)
}

func (s *Session) flush(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	s.srv.count(metrics.BytesEgress, len(b))
	_, err := s.conn.Write(b)
	return err
}
