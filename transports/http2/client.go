package http2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
	up, body := net.Pipe()
	answer, down := net.Pipe()
	c := &stream{up: up, down: down, client: client, life: life, cancel: cancel, ready: make(chan struct{})}
	go c.run(client.Request(life, http.MethodPost, "", body), answer)
	if with.Token == nil {
		return c, nil
	}
	select {
	case <-c.ready:
		if err := c.failure(); err != nil {
			_ = c.Close()
			return nil, err
		}
		return c, nil
	case <-ctx.Done():
		cancel()
		_ = c.Close()
		<-c.ready
		return nil, ctx.Err()
	}
}

// stream is the client's end: two pipes, of which net/http reads one and run
// fills the other, so that deadlines work and may be moved.
type stream struct {
	up     net.Conn // what is written here is the request body
	down   net.Conn // what the answer's body brought
	client *carrier.Client
	life   context.Context // of the request
	cancel context.CancelFunc
	ready  chan struct{} // closed when the answer's head is here, or never will be

	mu     sync.Mutex
	err    error // why the stream broke
	closed bool
}

// run makes the request and carries its answer until it ends.
func (c *stream) run(r *http.Request, answer net.Conn) {
	defer c.client.Close()
	defer c.cancel()
	defer answer.Close()
	body, err := c.request(r)
	if err != nil {
		c.fail(err)
	}
	close(c.ready)
	if err != nil {
		_ = c.up.Close()
		return
	}
	defer body.Close()
	_, err = io.Copy(answer, body)
	if errors.Is(err, io.ErrClosedPipe) {
		// Closed by the application: let the request's last bytes arrive.
		_, _ = io.Copy(io.Discard, body)
		return
	}
	if err != nil {
		c.fail(err)
	}
}

func (c *stream) request(r *http.Request) (io.ReadCloser, error) {
	resp, err := c.client.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/octet-stream" {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("http2: status %d: %w", resp.StatusCode, transport.ErrRefused)
	}
	return resp.Body, nil
}

func (c *stream) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// failure is the error that ended the stream, if any.
func (c *stream) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return c.err
}

// Read reads the response body.
func (c *stream) Read(p []byte) (int, error) {
	n, err := c.down.Read(p)
	if err == io.EOF || errors.Is(err, io.ErrClosedPipe) {
		if why := c.failure(); why != nil {
			err = why
		}
	}
	return n, err
}

// Write hands p to the request body; it returns when the HTTP client has
// taken all of it.
func (c *stream) Write(p []byte) (int, error) {
	n, err := c.up.Write(p)
	if errors.Is(err, io.ErrClosedPipe) {
		if why := c.failure(); why != nil {
			err = why
		}
	}
	return n, err
}

// CloseWrite ends the request body: the relay reads end of stream.
func (c *stream) CloseWrite() error { return c.up.Close() }

// Close ends the request body and wakes every call. In the background, and for
// at most three seconds, the relay may still end its answer, so that the last
// bytes written arrive.
func (c *stream) Close() error {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	c.mu.Unlock()
	if closed {
		return nil
	}
	_ = c.up.Close()
	_ = c.down.Close()
	timer := time.AfterFunc(linger, c.cancel)
	context.AfterFunc(c.life, func() { timer.Stop() })
	return nil
}

// SetDeadline sets both deadlines.
func (c *stream) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds Read; a Read may follow one that timed out.
func (c *stream) SetReadDeadline(t time.Time) error { return c.down.SetReadDeadline(t) }

// SetWriteDeadline bounds Write; a Write may follow one that timed out.
func (c *stream) SetWriteDeadline(t time.Time) error { return c.up.SetWriteDeadline(t) }

// LocalAddr is the address of the TLS connection's socket.
func (c *stream) LocalAddr() net.Addr { return c.client.Conn().LocalAddr() }

// RemoteAddr is the address of the TLS connection's peer.
func (c *stream) RemoteAddr() net.Addr { return c.client.Conn().RemoteAddr() }
