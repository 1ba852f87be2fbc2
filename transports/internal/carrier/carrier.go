package carrier

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"

	"github.com/commucat/commucat/sdk/transport"
	"golang.org/x/net/http2"
)

// Client makes requests to one endpoint. It keeps its connection, dials again
// when that cannot take a request any more, and is safe for concurrent use.
type Client struct {
	to   transport.Endpoint
	with transport.Dial
	head http.Header

	mu     sync.Mutex
	closed bool
	conn   net.Conn // the newest TLS connection
	h2     *http2.ClientConn
	h1     *http.Transport // over HTTP/1.1; nil while unknown or h2
	spare  net.Conn        // dialled, not yet handed to h1
	open   map[net.Conn]struct{}
	dialMu chan struct{} // one dial at a time
}

// Dial makes the first connection. ctx bounds that alone.
func Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (*Client, error) {
	p, err := lookup(with.Fingerprint)
	if err != nil {
		return nil, err
	}
	c := &Client{to: to, with: with, open: make(map[net.Conn]struct{}), dialMu: make(chan struct{}, 1)}
	c.head = http.Header{"User-Agent": {p.agent}, "Accept-Language": {"en-US,en;q=0.9"}}
	if _, err := c.tripper(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Request makes a request to the connect path with a token of its own for st.
func (c *Client) Request(ctx context.Context, method, st string, body io.ReadCloser) *http.Request {
	path := Path(c.to)
	r := &http.Request{
		Method: method,
		URL:    &url.URL{Scheme: "https", Host: Authority(c.to), Path: path},
		Header: c.head.Clone(),
		Body:   body,
		Host:   Authority(c.to),
	}
	if body != nil {
		r.ContentLength = -1
		r.Header.Set("Content-Type", "application/octet-stream")
	}
	if c.with.Token != nil {
		r.Header.Set("Cookie", c.to.Params[transport.ParamCookie]+"="+c.with.Token(method, path, st))
	}
	return r.WithContext(ctx)
}

// RoundTrip sends a request and tells the clock of the answer.
func (c *Client) RoundTrip(r *http.Request) (*http.Response, error) {
	t, err := c.tripper(r.Context())
	if err != nil {
		return nil, err
	}
	resp, err := t.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if c.with.ServerTime != nil {
		if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			c.with.ServerTime(at)
		}
	}
	return resp, nil
}

// tripper returns a connection that can take a request.
func (c *Client) tripper(ctx context.Context) (http.RoundTripper, error) {
	select {
	case c.dialMu <- struct{}{}:
		defer func() { <-c.dialMu }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	closed, h1, h2 := c.closed, c.h1, c.h2
	c.mu.Unlock()
	switch {
	case closed:
		return nil, net.ErrClosed
	case h1 != nil:
		return h1, nil
	case h2 != nil && h2.CanTakeNewRequest():
		return h2, nil
	}
	conn, proto, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	if proto != "h2" {
		t := &http.Transport{DialTLSContext: c.dialHTTP1, DisableCompression: true, MaxIdleConnsPerHost: 2}
		c.mu.Lock()
		c.h1, c.h2, c.spare = t, nil, conn
		c.mu.Unlock()
		return t, nil
	}
	t := &http2.Transport{DisableCompression: true, MaxReadFrameSize: 16 << 10}
	cc, err := t.NewClientConn(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c.mu.Lock()
	c.h2 = cc
	c.mu.Unlock()
	return cc, nil
}

// dial makes a TLS connection that Close and Drop know of.
func (c *Client) dial(ctx context.Context) (net.Conn, string, error) {
	conn, proto, err := DialTLS(ctx, c.to, c.with, false)
	if err != nil {
		return nil, "", err
	}
	t := &tracked{Conn: conn, client: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close()
		return nil, "", net.ErrClosed
	}
	c.conn = t
	c.open[t] = struct{}{}
	return t, proto, nil
}

// dialHTTP1 gives net/http the connection that was dialled to learn the
// protocol, and after that new ones.
func (c *Client) dialHTTP1(ctx context.Context, _, _ string) (net.Conn, error) {
	c.mu.Lock()
	spare := c.spare
	c.spare = nil
	c.mu.Unlock()
	if spare != nil {
		return spare, nil
	}
	conn, proto, err := c.dial(ctx)
	if err == nil && proto == "h2" {
		// The server has changed its mind: begin anew.
		_ = conn.Close()
		c.Drop()
		err = errors.New("carrier: the server turned to HTTP/2")
	}
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Drop closes the connections at hand; the next request dials.
func (c *Client) Drop() {
	c.mu.Lock()
	open := make([]net.Conn, 0, len(c.open))
	for conn := range c.open {
		open = append(open, conn)
	}
	h1 := c.h1
	c.h1, c.h2, c.spare = nil, nil, nil
	c.mu.Unlock()
	for _, conn := range open {
		_ = conn.Close()
	}
	if h1 != nil {
		h1.CloseIdleConnections()
	}
}

// Close closes everything; later requests fail with [net.ErrClosed].
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.Drop()
}

// Conn is the newest connection, for its addresses.
func (c *Client) Conn() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn
}

// tracked leaves the client's list when it is closed.
type tracked struct {
	net.Conn
	client *Client
}

func (t *tracked) Close() error {
	t.client.mu.Lock()
	delete(t.client.open, t)
	t.client.mu.Unlock()
	return t.Conn.Close()
}
