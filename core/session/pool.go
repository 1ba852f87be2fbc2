package session

import "sync"

// Sizes of pooled buffers. The middle one holds a TLS record, the large one a
// whole Noise record.
const (
	smallBuf = 4 << 10
	ownBuf   = 1 << 10 // up to here a unit of an old peer gets memory of its own
	midBuf   = 17 << 10
	largeBuf = 66 << 10
)

// pools lends buffers in three sizes. Buffers are not cleared: what is in them
// has been sent or is ciphertext turned plaintext of the same process.
type pools struct{ small, mid, large sync.Pool }

// get lends an empty buffer with room for n bytes at least.
func (p *pools) get(n int) []byte {
	switch {
	case n <= smallBuf:
		if b, ok := p.small.Get().(*[smallBuf]byte); ok {
			return b[:0]
		}
		return new([smallBuf]byte)[:0]
	case n <= midBuf:
		if b, ok := p.mid.Get().(*[midBuf]byte); ok {
			return b[:0]
		}
		return new([midBuf]byte)[:0]
	case n <= largeBuf:
		if b, ok := p.large.Get().(*[largeBuf]byte); ok {
			return b[:0]
		}
		return new([largeBuf]byte)[:0]
	}
	return make([]byte, 0, n)
}

// put takes a buffer back; buffers of other sizes go to the collector.
func (p *pools) put(b []byte) {
	switch cap(b) {
	case smallBuf:
		p.small.Put((*[smallBuf]byte)(b[:smallBuf]))
	case midBuf:
		p.mid.Put((*[midBuf]byte)(b[:midBuf]))
	case largeBuf:
		p.large.Put((*[largeBuf]byte)(b[:largeBuf]))
	}
}

// grow gives a larger buffer with the same content and takes b back.
func (p *pools) grow(b []byte, n int) []byte {
	out := append(p.get(n), b...)
	p.put(b)
	return out
}

// slots is a budget of bytes for large frames, first come, first served.
type slots struct {
	mu    sync.Mutex
	free  int64
	queue []*slotWait
}

type slotWait struct {
	n     int64
	ready chan struct{}
}

// take waits for n bytes, or until stop is closed (false). n over the whole budget
// is never granted, so callers bound it first.
func (s *slots) take(n int64, stop <-chan struct{}) bool {
	s.mu.Lock()
	if len(s.queue) == 0 && s.free >= n {
		s.free -= n
		s.mu.Unlock()
		return true
	}
	w := &slotWait{n, make(chan struct{})}
	s.queue = append(s.queue, w)
	s.mu.Unlock()
	select {
	case <-w.ready:
		return true
	case <-stop:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, x := range s.queue {
		if x == w {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			s.grant()
			return false
		}
	}
	s.free += n // granted in the same moment
	s.grant()
	return false
}

func (s *slots) give(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free += n
	s.grant()
}

// grant serves the queue from its head; mu is held.
func (s *slots) grant() {
	for len(s.queue) > 0 && s.queue[0].n <= s.free {
		s.free -= s.queue[0].n
		close(s.queue[0].ready)
		s.queue = s.queue[1:]
	}
}
