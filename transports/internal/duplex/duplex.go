package duplex

import (
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// Conn is the server's end of one exchange. It keeps nothing but pointers to
// what net/http holds anyway: an idle stream costs no buffer and no goroutine
// of ours.
type Conn struct {
	name string
	w    http.ResponseWriter
	rc   *http.ResponseController
	r    *http.Request

	closed  atomic.Bool
	writing sync.Mutex // held during a Write; Finish waits for it
	mu      sync.Mutex // guards rc's deadlines against the handler's end
	over    bool       // the handler is returning: w and rc are dead
}

// New returns the stream of one exchange on the transport of that name. It must
// be finished before the handler returns.
func New(name string, w http.ResponseWriter, r *http.Request) *Conn {
	return &Conn{name: name, w: w, rc: http.NewResponseController(w), r: r}
}

// Read reads the request body.
func (c *Conn) Read(p []byte) (int, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.r.Body.Read(p)
	if err != nil {
		err = c.plain(err)
	}
	return n, err
}

// Write writes p and flushes it: one DATA frame or chunk up to 16 KiB.
func (c *Conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.w.Write(p)
	if err == nil {
		err = c.rc.Flush()
	}
	if err != nil {
		return n, c.plain(err)
	}
	return n, nil
}

// Flush sends what net/http holds back, at first the head.
func (c *Conn) Flush() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.rc.Flush()
}

// plain gives the errors of net/http the values that a net.Conn has.
func (c *Conn) plain(err error) error {
	switch {
	case c.closed.Load():
		return net.ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	default:
		return err
	}
}

// Close wakes every call; the peer reads end of stream once the handler has
// returned, after everything that was written.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil
	}
	past := time.Unix(1, 0)
	// Over HTTP/1.1 the body's lock is held by a blocked Read, so only the
	// deadline can wake it.
	_ = c.rc.SetReadDeadline(past)
	if c.writing.TryLock() {
		c.writing.Unlock()
	} else {
		// Over HTTP/2 this resets the stream, so it is done only when a Write
		// is stuck.
		_ = c.rc.SetWriteDeadline(past)
	}
	return nil
}

// Finish runs when accept has returned, before net/http takes w back.
func (c *Conn) Finish() {
	_ = c.Close()
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
}

// Release gives the exchange back without an answer, for another handler: the
// deadlines are lifted and the conn is dead.
func (c *Conn) Release() {
	c.closed.Store(true)
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.over = true
		_ = c.rc.SetReadDeadline(time.Time{})
		_ = c.rc.SetWriteDeadline(time.Time{})
	}
}

// SetDeadline sets both deadlines. A deadline that has passed ends the stream.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds Read; see [Conn.SetDeadline].
func (c *Conn) SetReadDeadline(t time.Time) error { return c.deadline(t, c.rc.SetReadDeadline) }

// SetWriteDeadline bounds Write; see [Conn.SetDeadline].
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.deadline(t, c.rc.SetWriteDeadline) }

func (c *Conn) deadline(t time.Time, set func(time.Time) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.closed.Load() {
		return net.ErrClosed
	}
	return set(t)
}

// LocalAddr is the address of the listener's socket.
func (c *Conn) LocalAddr() net.Addr {
	if a, ok := c.r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return a
	}
	return transport.Addr{Net: c.name}
}

// RemoteAddr is the client's address as the front gave it.
func (c *Conn) RemoteAddr() net.Addr {
	if ap := transport.ParseAddrPort(c.r.RemoteAddr); ap.IsValid() {
		return net.TCPAddrFromAddrPort(ap)
	}
	return transport.Addr{Net: c.name, Text: c.r.RemoteAddr}
}
