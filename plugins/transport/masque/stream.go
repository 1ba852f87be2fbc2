package masque

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/commucat/commucat/sdk/transport"
)

// Name is the transport's name in links, lists and metrics.
const Name = "masque"

// h3Stream is what http3.Stream and http3.RequestStream share.
type h3Stream interface {
	io.ReadWriteCloser
	CancelRead(quic.StreamErrorCode)
	CancelWrite(quic.StreamErrorCode)
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Error codes of RFC 9114 section 8.1 that we send.
const (
	codeNone      = quic.StreamErrorCode(http3.ErrCodeNoError)
	codeCancelled = quic.StreamErrorCode(http3.ErrCodeRequestCanceled)
	codeConnect   = quic.StreamErrorCode(http3.ErrCodeConnectError)
)

// streamConn is a CONNECT stream over HTTP/3 as a net.Conn, the same at both ends.
// It has no buffer and no goroutine of its own.
type streamConn struct {
	str           h3Stream
	local, remote func() net.Addr
	facts         transport.Facts
	pass          *pass // the server's end: the guest's quota; else nil
	// finish ends what the stream stands on, after Close; nil at the server.
	finish func()
	// watch is told of writes; nil where silence has no way round.
	watch *watch

	reading, writing sync.Mutex
	torn             bool // a write failed; guarded by writing
	deadlines        sync.Mutex
	closed           atomic.Bool // set with deadlines held
}

// Path implements transport.PathFacts.
func (c *streamConn) Path() transport.Facts { return c.facts }

// Read implements net.Conn.
func (c *streamConn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.str.Read(p)
	return n, c.passed(n, err)
}

// Write implements net.Conn: one DATA frame.
func (c *streamConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	c.watch.wrote()
	n, err := c.str.Write(p)
	c.torn = err != nil
	return n, c.passed(n, err)
}

// passed counts bytes and gives errors the values that a net.Conn has.
func (c *streamConn) passed(n int, err error) error {
	if c.pass != nil && !c.pass.count(n) {
		c.pass.end()
		return errBytes
	}
	switch {
	case err == nil || err == io.EOF:
		return err
	case c.closed.Load():
		return net.ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	}
	return err
}

// CloseWrite implements transport.CloseWriter.
func (c *streamConn) CloseWrite() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.end()
}

// end finishes the sending side: what was written arrives, then the end. After a
// torn write the peer must not take what it has for the whole.
func (c *streamConn) end() error {
	if c.torn {
		c.str.CancelWrite(codeCancelled)
		return nil
	}
	return c.str.Close()
}

// Close implements net.Conn. It wakes every call; what was written still arrives,
// unless a Write is stuck.
func (c *streamConn) Close() error {
	c.deadlines.Lock()
	if c.closed.Swap(true) {
		c.deadlines.Unlock()
		return nil
	}
	c.watch.end()
	if c.finish != nil {
		_ = c.str.SetReadDeadline(time.Unix(1, 0))
	}
	c.deadlines.Unlock()
	if c.writing.TryLock() {
		_ = c.end()
		c.writing.Unlock()
	} else {
		c.str.CancelWrite(codeCancelled)
	}
	if c.finish != nil {
		go c.linger()
	} else {
		c.str.CancelRead(codeNone)
	}
	if c.pass != nil {
		c.pass.leave()
	}
	return nil
}

// How long, and over how many bytes, a closed client waits for the server's end of
// the stream before it closes the connection: until then the last bytes that it
// wrote may be on their way.
const (
	lingerTime  = 5 * time.Second
	lingerBytes = 1 << 20
)

func (c *streamConn) linger() {
	c.reading.Lock()
	defer c.reading.Unlock()
	_ = c.str.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.str, lingerBytes)
	c.str.CancelRead(codeNone)
	c.finish()
}

// LocalAddr implements net.Conn.
func (c *streamConn) LocalAddr() net.Addr { return c.local() }

// RemoteAddr implements net.Conn.
func (c *streamConn) RemoteAddr() net.Addr { return c.remote() }

// SetDeadline implements net.Conn.
func (c *streamConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *streamConn) SetReadDeadline(t time.Time) error {
	return c.deadline(t, c.str.SetReadDeadline)
}

// SetWriteDeadline implements net.Conn.
func (c *streamConn) SetWriteDeadline(t time.Time) error {
	return c.deadline(t, c.str.SetWriteDeadline)
}

func (c *streamConn) deadline(t time.Time, set func(time.Time) error) error {
	c.deadlines.Lock()
	defer c.deadlines.Unlock()
	if c.closed.Load() {
		return net.ErrClosed
	}
	return set(t)
}
