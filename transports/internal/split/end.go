package split

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// Ring is how many downstream bytes a stream holds until the client has
	// them; a writer waits while it is full.
	Ring = 256 << 10
	// intake is how many upstream bytes wait for the relay's reader.
	intake = 64 << 10
	// MaxUp is the most bytes of one upstream request.
	MaxUp = 1 << 20
	// keep is the largest buffer that an idle stream keeps.
	keep = 4 << 10
)

// end is a net.Conn between an application and the requests that carry its
// bytes. in holds bytes that have arrived and are not read, out holds bytes
// that are written and not known to have arrived.
type end struct {
	mu     sync.Mutex
	change sync.Cond // of anything below

	in      []byte
	inLimit int
	inEOF   bool // the peer ended its direction

	out     []byte
	outBase uint64 // offset of out[0]
	outEOF  bool   // the application ended its direction

	closed bool  // by the application
	err    error // why the stream broke

	readBy, writeBy deadline
}

// deadline is a moment that wakes the waiting calls.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (e *end) init(inLimit int) {
	e.change.L = &e.mu
	e.inLimit = inLimit
}

// wake is called by timers and contexts.
func (e *end) wake() {
	e.mu.Lock()
	e.change.Broadcast()
	e.mu.Unlock()
}

// Read takes what has arrived.
func (e *end) Read(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		switch {
		case e.closed:
			return 0, net.ErrClosed
		case e.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(e.in) > 0:
			n := copy(p, e.in)
			e.in = shrink(e.in, n)
			e.change.Broadcast()
			return n, nil
		case e.inEOF:
			return 0, io.EOF
		case e.err != nil:
			return 0, e.err
		}
		e.change.Wait()
	}
}

// shrink drops the first n bytes of a queue.
func shrink(q []byte, n int) []byte {
	if n == len(q) && cap(q) > keep {
		return nil
	}
	return q[:copy(q, q[n:])]
}

// Write queues p; it waits while the queue is full.
func (e *end) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	done := 0
	for {
		switch {
		case e.closed:
			return done, net.ErrClosed
		case e.err != nil:
			return done, e.err
		case e.outEOF:
			return done, io.ErrClosedPipe
		case e.writeBy.passed():
			return done, os.ErrDeadlineExceeded
		}
		if n := min(len(p)-done, Ring-len(e.out)); n > 0 {
			e.out = append(e.out, p[done:done+n]...)
			done += n
			e.change.Broadcast()
		}
		if done == len(p) {
			return done, nil
		}
		e.change.Wait()
	}
}

// CloseWrite ends our direction after what was written.
func (e *end) CloseWrite() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	e.outEOF = true
	e.change.Broadcast()
	return nil
}

// close wakes every call; what was written may still be fetched. It says
// whether this was the first close.
func (e *end) close() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.closed, e.outEOF, e.in = true, true, nil
	for _, d := range []*deadline{&e.readBy, &e.writeBy} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	e.change.Broadcast()
	return true
}

// fail ends both directions; bytes that have arrived can still be read.
func (e *end) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = err
	}
	e.change.Broadcast()
}

// put hands over bytes that arrived. It waits for room as long as alive,
// called with the lock held, says so, and returns how many were taken; count
// grows by each of them in the same step.
func (e *end) put(p []byte, alive func() bool, count *uint64) int {
	done := 0
	e.mu.Lock()
	defer e.mu.Unlock()
	for alive() {
		if e.closed {
			*count += uint64(len(p) - done)
			return len(p) // nobody will read them
		}
		if n := min(len(p)-done, e.inLimit-len(e.in)); n > 0 {
			e.in = append(e.in, p[done:done+n]...)
			done += n
			*count += uint64(n)
			e.change.Broadcast()
		}
		if done == len(p) {
			break
		}
		e.change.Wait()
	}
	return done
}

// ack frees what lies below offset; false if offset is not in what out holds.
// The lock is held.
func (e *end) ack(offset uint64) bool {
	if offset < e.outBase || offset-e.outBase > uint64(len(e.out)) {
		return false
	}
	if n := int(offset - e.outBase); n > 0 {
		e.out = shrink(e.out, n)
		e.outBase = offset
		e.change.Broadcast()
	}
	return true
}

// outEnd is the offset after the last byte written. The lock is held.
func (e *end) outEnd() uint64 { return e.outBase + uint64(len(e.out)) }

// copyOut copies written bytes from offset on; 0 if there are none. The lock
// is held.
func (e *end) copyOut(dst []byte, offset uint64) int {
	if offset < e.outBase || offset >= e.outEnd() {
		return 0
	}
	return copy(dst, e.out[offset-e.outBase:])
}

// SetDeadline sets both deadlines.
func (e *end) SetDeadline(t time.Time) error {
	return errors.Join(e.SetReadDeadline(t), e.SetWriteDeadline(t))
}

// SetReadDeadline bounds Read; a Read may follow one that timed out.
func (e *end) SetReadDeadline(t time.Time) error { return e.set(&e.readBy, t) }

// SetWriteDeadline bounds Write; a Write may follow one that timed out.
func (e *end) SetWriteDeadline(t time.Time) error { return e.set(&e.writeBy, t) }

func (e *end) set(d *deadline, t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	d.at = t
	switch {
	case t.IsZero():
		if d.timer != nil {
			d.timer.Stop()
		}
	case d.timer == nil:
		d.timer = time.AfterFunc(time.Until(t), e.wake)
	default:
		d.timer.Reset(time.Until(t))
	}
	e.change.Broadcast()
	return nil
}
