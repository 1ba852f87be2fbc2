package transfer

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// Sections of a digest, so that nothing of one can stand for something of another.
const (
	inRecord = 'r'
	inMark   = 'm'
	inQueue  = 'q'
)

// digest hashes numbers and texts so that no two different rows of them are alike.
type digest struct{ h hash.Hash }

func newDigest() digest { return digest{sha256.New()} }

func (d digest) number(n uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	_, _ = d.h.Write(b[:]) // a hash never fails
}

func (d digest) text(b []byte) {
	d.number(uint64(len(b)))
	_, _ = d.h.Write(b)
}

func (d digest) sum() (s [32]byte) { return [32]byte(d.h.Sum(s[:0])) }

func (d digest) record(r *storage.Record) {
	d.number(inRecord)
	d.text([]byte(r.Kind))
	d.text([]byte(r.ID))
	expires := uint64(0)
	if !r.Expires.IsZero() {
		expires = uint64(r.Expires.UnixMicro())
	}
	d.number(expires)
	d.text(r.Value)
}

func (d digest) mark(m *storage.Mark) {
	d.number(inMark)
	d.text([]byte(m.Key))
	d.text(m.Value)
}

func (d digest) message(e *storage.Envelope) {
	_, _ = d.h.Write(e.ID[:])
	d.number(uint64(wholeSeconds(e.Expires)))
	d.text(e.Payload)
}

func (d digest) queue(name string, rows uint64, sum [32]byte) {
	d.number(inQueue)
	d.text([]byte(name))
	d.number(rows)
	_, _ = d.h.Write(sum[:])
}

// wholeSeconds rounds up: the coarsest precision that a backend may keep.
func wholeSeconds(t time.Time) int64 {
	micros := t.UnixMicro()
	s := micros / 1e6
	if micros%1e6 > 0 {
		s++
	}
	return s
}
