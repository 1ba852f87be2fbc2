package masque

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// serveTCP serves the site over HTTP/1.1 and HTTP/2 until Close.
func (s *server) serveTCP(ln net.Listener, cert tls.Certificate) {
	port := transport.AddrPort(s.addr).Port()
	web := &http.Server{
		Handler:   &site{server: s, altSvc: fmt.Sprintf("h3=\":%d\"; ma=%d", port, int(altSvcValid/time.Second))},
		TLSConfig: serverTLS(cert, "h2", "http/1.1"),
		// The same values as the relay's own listener.
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(io.Discard, "", 0), // strangers' handshakes
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100, MaxReadFrameSize: 16 << 10, MaxReceiveBufferPerStream: 1 << 20,
			MaxReceiveBufferPerConnection: 1 << 20, WriteByteTimeout: time.Minute,
		},
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = web.ServeTLS(ln, "", "")
	}()
	s.stops = append(s.stops, func() { _ = ln.Close() })
	s.closers = append(s.closers, func() {
		_ = web.Close()
		<-over
	})
}

// streamH2 runs a guest's stream over HTTP/2 until the relay has closed it.
func (s *site) streamH2(w http.ResponseWriter, r *http.Request, pass *pass, facts transport.Facts, messages bool) {
	rc := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	if err := rc.Flush(); err != nil {
		pass.leave()
		return
	}
	local, remote := addresses(r)
	c := &h2Conn{body: r.Body, w: w, rc: rc, local: local, remote: remote, facts: facts, pass: pass, over: make(chan struct{})}
	defer c.finish()
	if s.deliver(pass, wrap(c, messages)) {
		<-c.over
	}
}

// h2Conn is the server's end of a CONNECT stream over HTTP/2. It has no CloseWrite:
// net/http ends a stream in both directions at once.
type h2Conn struct {
	body          io.Reader
	w             http.ResponseWriter
	rc            *http.ResponseController
	local, remote func() net.Addr
	facts         transport.Facts
	pass          *pass
	over          chan struct{} // closed by Close: the handler may return

	closed   atomic.Bool
	writing  sync.Mutex
	mu       sync.Mutex // guards rc and w against the handler's end
	finished bool
}

// Path implements transport.PathFacts.
func (c *h2Conn) Path() transport.Facts { return c.facts }

// Read implements net.Conn.
func (c *h2Conn) Read(p []byte) (int, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.body.Read(p)
	return n, c.passed(n, err)
}

// Write implements net.Conn.
func (c *h2Conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.w.Write(p)
	if err == nil {
		err = c.rc.Flush()
	}
	return n, c.passed(n, err)
}

func (c *h2Conn) passed(n int, err error) error {
	if !c.pass.count(n) {
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

// Close implements net.Conn.
func (c *h2Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	defer close(c.over)
	defer c.pass.leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished {
		return nil
	}
	past := time.Unix(1, 0)
	_ = c.rc.SetReadDeadline(past)
	if c.writing.TryLock() {
		c.writing.Unlock()
	} else {
		_ = c.rc.SetWriteDeadline(past) // resets the stream
	}
	return nil
}

// finish runs when the handler returns, before net/http takes the writer back.
func (c *h2Conn) finish() {
	_ = c.Close()
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished = true
}

// LocalAddr implements net.Conn.
func (c *h2Conn) LocalAddr() net.Addr { return c.local() }

// RemoteAddr implements net.Conn.
func (c *h2Conn) RemoteAddr() net.Addr { return c.remote() }

// SetDeadline implements net.Conn. A deadline that has passed ends the stream.
func (c *h2Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *h2Conn) SetReadDeadline(t time.Time) error { return c.deadline(t, c.rc.SetReadDeadline) }

// SetWriteDeadline implements net.Conn.
func (c *h2Conn) SetWriteDeadline(t time.Time) error { return c.deadline(t, c.rc.SetWriteDeadline) }

func (c *h2Conn) deadline(t time.Time, set func(time.Time) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished || c.closed.Load() {
		return net.ErrClosed
	}
	return set(t)
}

// beginH2 accepts a tunnel over HTTP/2: capsules alone.
func (s *site) beginH2(w http.ResponseWriter, r *http.Request) (*flow, error) {
	rc := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	if err := rc.Flush(); err != nil {
		return nil, err
	}
	f := newFlow(r.Body, flushing{w, rc}, func(bool) {
		_ = rc.SetReadDeadline(time.Unix(1, 0))
		_ = rc.SetWriteDeadline(time.Unix(1, 0))
	}, &s.large)
	f.server = true
	return f, nil
}

// flushing sends at once what is written.
type flushing struct {
	w  io.Writer
	rc *http.ResponseController
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.rc.Flush()
	}
	return n, err
}
