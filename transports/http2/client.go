package http2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/carrier"
)

// linger is how long a closed stream may take to hand over its last bytes.
const linger = 3 * time.Second

type dialer struct{}

// NewDialer returns the client half. Without a token ([transport.Dial.Token]
// nil: the reference's connect path) Dial does not wait for the answer, which
// such a relay withholds until it has read the Hello.
func NewDialer() transport.Dialer { return dialer{} }

// Name returns "http2".
func (dialer) Name() string { return Name }

// Dial makes a TLS connection of its own and the POST on it. The error is
// [transport.ErrRefused] if a stranger's answer came back.
func (dialer) Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	client, err := carrier.Dial(ctx, to, with)
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	app, body := net.Pipe()
	c := &stream{up: app, client: client, cancel: cancel, ready: make(chan struct{})}
	go c.request(client.Request(life, http.MethodPost, "", body))
	if with.Token == nil {
		return c, nil
	}
	select {
	case <-c.ready:
		if c.err != nil {
			c.abort()
			return nil, c.err
		}
		return c, nil
	case <-ctx.Done():
		c.abort()
		<-c.ready
		return nil, ctx.Err()
	}
}

// stream is the client's end.
type stream struct {
	up     net.Conn // what is written here is the request body
	client *carrier.Client
	cancel context.CancelFunc

	ready chan struct{} // closed when the answer's head is here
	down  io.ReadCloser // valid after ready
	err   error         // valid after ready

	mu      sync.Mutex
	closed  bool
	reading bool
	expired bool // a deadline passed during a Read: the stream is dead
	until   time.Time
	timer   *time.Timer
	wake    chan struct{} // closed when expired is set, for reads before ready
}

func (c *stream) request(r *http.Request) {
	defer close(c.ready)
	resp, err := c.client.RoundTrip(r)
	if err != nil {
		c.err = err
		return
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/octet-stream" {
		_ = resp.Body.Close()
		c.err = fmt.Errorf("http2: status %d: %w", resp.StatusCode, transport.ErrRefused)
		return
	}
	c.down = resp.Body
}

// Read reads the response body.
func (c *stream) Read(p []byte) (int, error) {
	wake, err := c.begin()
	if err != nil {
		return 0, err
	}
	defer c.end()
	select {
	case <-c.ready:
	case <-wake:
		return 0, c.plain(os.ErrDeadlineExceeded)
	}
	if c.err != nil {
		return 0, c.plain(c.err)
	}
	n, err := c.down.Read(p)
	if err != nil {
		err = c.plain(err)
	}
	return n, err
}

func (c *stream) begin() (<-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, net.ErrClosed
	case c.expired, !c.until.IsZero() && !time.Now().Before(c.until):
		return nil, os.ErrDeadlineExceeded
	}
	c.reading = true
	if c.wake == nil {
		c.wake = make(chan struct{})
	}
	return c.wake, nil
}

func (c *stream) end() {
	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
}

// plain gives errors the values that a net.Conn has.
func (c *stream) plain(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return net.ErrClosed
	case c.expired:
		return os.ErrDeadlineExceeded
	default:
		return err
	}
}

// Write hands p to the request body; it returns when the HTTP client has
// taken all of it.
func (c *stream) Write(p []byte) (int, error) {
	n, err := c.up.Write(p)
	if errors.Is(err, io.ErrClosedPipe) {
		err = c.plain(io.ErrClosedPipe)
	}
	return n, err
}

// CloseWrite ends the request body: the relay reads end of stream.
func (c *stream) CloseWrite() error { return c.up.Close() }

// Close ends the request body and, in the background and for at most three
// seconds, waits for the relay to end the answer, so that the last bytes
// written arrive.
func (c *stream) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	dead := c.expired
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.wake == nil {
		c.wake = make(chan struct{})
	}
	if !dead {
		close(c.wake)
	}
	c.mu.Unlock()
	_ = c.up.Close()
	if dead {
		c.abort()
		return nil
	}
	timer := time.AfterFunc(linger, c.abort)
	go func() {
		<-c.ready
		if c.down != nil {
			_, _ = io.Copy(io.Discard, c.down)
		}
		timer.Stop()
		c.abort()
	}()
	return nil
}

func (c *stream) abort() {
	c.cancel()
	_ = c.up.Close()
	c.client.Close()
}

// SetDeadline sets both deadlines.
func (c *stream) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds Read. One that passes during a Read ends the stream.
func (c *stream) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.until = t; t.IsZero() {
		return nil
	}
	c.timer = time.AfterFunc(time.Until(t), c.expire)
	return nil
}

func (c *stream) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.expired || !c.reading || c.until.IsZero() || time.Now().Before(c.until) {
		return
	}
	c.expired = true
	close(c.wake)
	c.cancel()
}

// SetWriteDeadline bounds Write; a Write may follow one that timed out.
func (c *stream) SetWriteDeadline(t time.Time) error { return c.up.SetWriteDeadline(t) }

// LocalAddr is the address of the TLS connection's socket.
func (c *stream) LocalAddr() net.Addr { return c.client.Conn().LocalAddr() }

// RemoteAddr is the address of the TLS connection's peer.
func (c *stream) RemoteAddr() net.Addr { return c.client.Conn().RemoteAddr() }
