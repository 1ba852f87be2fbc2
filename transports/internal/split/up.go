package split

import (
	"context"
	"io"
	"net/http"
	"time"
)

// up takes the body of one request, which starts at offset.
func (s *Server) up(w http.ResponseWriter, r *http.Request, x *stream, offset uint64) {
	if r.ContentLength > MaxUp {
		number(w, http.StatusRequestEntityTooLarge, x.next())
		return
	}
	// A body that stops coming holds neither its request nor its stream for ever: the
	// client goes on from what has arrived.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(s.times.Idle))
	f := &fetch{stop: func() { _ = rc.SetReadDeadline(time.Unix(1, 0)) }}
	x.mu.Lock()
	if offset > x.upNext {
		next := x.upNext
		x.mu.Unlock()
		number(w, http.StatusConflict, next)
		return
	}
	x.replace(&x.upNow, f)
	x.mu.Unlock()
	defer x.leave(f)
	stop := context.AfterFunc(r.Context(), x.wake)
	defer stop()

	alive := func() bool {
		return x.upNow == f && !x.gone && x.err == nil && (x.closed || r.Context().Err() == nil)
	}
	buf := s.chunk()
	defer s.chunks.Put(buf)
	for total := 0; ; {
		n, err := r.Body.Read((*buf)[:min(len(*buf), MaxUp-total)])
		total += n
		if !x.take((*buf)[:n], offset, alive) {
			break
		}
		offset += uint64(n)
		if err != nil || total == MaxUp {
			if err != nil && err != io.EOF {
				return // the request is broken; nobody waits for an answer
			}
			break
		}
	}
	number(w, http.StatusOK, x.next())
}

// leave ends a request's hold; afterwards stop is not called any more.
func (x *stream) leave(f *fetch) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.upNow == f {
		x.upNow = nil
	}
	if x.downNow == f {
		x.downNow = nil
	}
}

// next is the next expected upstream byte.
func (x *stream) next() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.upNext
}

// take queues the part of p, which starts at offset, that is new. upNext moves
// with the bytes, never before them; false if the request has to end.
func (x *stream) take(p []byte, offset uint64, alive func() bool) bool {
	x.mu.Lock()
	if !alive() || x.inEOF {
		x.mu.Unlock()
		return false
	}
	if skip := x.upNext - offset; skip >= uint64(len(p)) {
		x.mu.Unlock()
		return true
	} else {
		p = p[skip:]
	}
	x.mu.Unlock()
	// Only the request that is upNow moves upNext, and put stops as soon as
	// that is another one.
	return x.put(p, alive, &x.upNext) == len(p)
}
