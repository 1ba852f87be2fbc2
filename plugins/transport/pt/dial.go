package pt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/plugins/transport/pt/managed"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// retryAfter is how long a failed start of a child is believed.
const retryAfter = time.Second

// maxChildren bounds the methods that one dialler uses at a time.
const maxChildren = 16

// clients are the children of the client side, one for each method, started with the
// first dial.
type clients struct {
	env sdk.Env
	cfg Config

	mu     sync.Mutex
	all    map[string]*client
	closed bool

	life context.Context // ends with close, and with it what is being started
	end  context.CancelFunc
}

// client is one child.
type client struct {
	turn   chan struct{} // held while one starts; it guards the rest
	child  *managed.Process
	folder string
	failed error
	since  time.Time
	gone   bool // it was swept away
}

func newClients(env sdk.Env, c Config) agent.Client {
	cs := &clients{env: env, cfg: c, all: map[string]*client{}}
	cs.life, cs.end = context.WithCancel(context.Background())
	return cs
}

func errClosed() error { return &sdk.Error{Kind: sdk.Closed, Text: "the transport is closed"} }

// Dial opens a stream. When it returns, the relay has been heard, if the endpoint says
// that the relay is heard first; else the child has granted the stream, no more.
func (cs *clients) Dial(ctx context.Context, to transport.Endpoint, _ transport.Dial) (net.Conn, error) {
	method := to.Params[paramMethod]
	if method == "" {
		method = cs.cfg.method()
	}
	if !managed.ValidMethod(method) || to.Host == "" {
		return nil, &sdk.Error{Kind: sdk.Invalid, Op: "endpoint", Text: "it names no pluggable transport, or no host"}
	}
	args, err := managed.ParseArgs(to.Params[paramArgs], managed.Semicolon)
	if err != nil {
		return nil, &sdk.Error{Kind: sdk.Invalid, Op: "endpoint", Err: err}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cs.cfg.Limit, fmt.Errorf("%s did not come through within %v", method, cs.cfg.Limit))
	defer cancel()
	ctx, closed := context.WithCancelCause(ctx)
	defer context.AfterFunc(cs.life, func() { closed(errClosed()) })()
	defer closed(nil)
	child, err := cs.child(ctx, method)
	if err != nil && ctx.Err() != nil {
		return nil, failed(ctx, method, err)
	}
	if err != nil {
		return nil, err
	}
	at := child.Method()
	if at.Protocol != "socks5" {
		return nil, &sdk.Error{Kind: sdk.Unsupported, Op: method, Text: "the program speaks " + at.Protocol + ", only socks5 is known"}
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", at.Addr.String())
	if err != nil {
		return nil, failed(ctx, method, err)
	}
	c := raw.(*net.TCPConn)
	err = managed.Connect(ctx, c, net.JoinHostPort(to.Host, strconv.Itoa(int(to.Port))), args)
	if err == nil && to.Params[paramReady] == "1" {
		err = hear(ctx, c)
	}
	if err != nil {
		c.Close()
		return nil, failed(ctx, method, err)
	}
	return agent.NewStream(c, transport.Facts{Transport: Name, Remote: transport.AddrPort(c.RemoteAddr()), Context: context.Background()}), nil
}

// hear asks for the relay's byte: that costs a round trip, and proves that it is there.
func hear(ctx context.Context, c *net.TCPConn) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	b := [1]byte{readyByte}
	_, err := c.Write(b[:])
	if err == nil {
		_, err = c.Read(b[:])
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("the program granted a stream, and no relay was heard: %w", err)
	}
	if b[0] != readyByte {
		return errors.New("something else than a relay answered")
	}
	return nil
}

// failed names the limit where it was the reason.
func failed(ctx context.Context, method string, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		<-ctx.Done() // the deadline was the context's, which ends now
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = cause
	}
	return &sdk.Error{Kind: sdk.Unavailable, Op: method, Err: err}
}

// child gives the running child of a method, or starts one.
func (cs *clients) child(ctx context.Context, method string) (*managed.Process, error) {
	cs.mu.Lock()
	c := cs.all[method]
	switch {
	case cs.closed:
		cs.mu.Unlock()
		return nil, errClosed()
	case c == nil && len(cs.all) >= maxChildren && !cs.sweep():
		cs.mu.Unlock()
		return nil, &sdk.Error{Kind: sdk.Full, Text: fmt.Sprintf("%d methods are in use already", maxChildren)}
	case c == nil:
		c = &client{turn: make(chan struct{}, 1)}
		cs.all[method] = c
	}
	cs.mu.Unlock()
	select { // it may be another's start that is waited for
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c.gone {
		return cs.child(ctx, method)
	}
	if c.child != nil {
		select {
		case <-c.child.Done():
			cs.env.Log().Warn("child has ended", "method", method, "error", c.child.Err())
		default:
			return c.child, nil
		}
	}
	if c.failed != nil && time.Since(c.since) < retryAfter {
		return nil, c.failed
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	child, err := cs.start(ctx, method, c)
	if err != nil && ctx.Err() == nil {
		c.failed, c.since = err, time.Now()
	}
	if err != nil {
		return nil, err
	}
	c.child, c.failed = child, nil
	cs.mu.Lock()
	closed := cs.closed
	cs.mu.Unlock()
	if closed {
		c.stop()
		return nil, errClosed()
	}
	return child, nil
}

// sweep forgets the methods that have no child, so that links which name some that do
// not exist take no place for long; false: there are none. cs.mu is held.
func (cs *clients) sweep() bool {
	found := false
	for method, c := range cs.all {
		select {
		case c.turn <- struct{}{}:
		default:
			continue // one is started
		}
		if c.child == nil {
			c.stop() // its folder
			c.gone = true
			delete(cs.all, method)
			found = true
		}
		<-c.turn
	}
	return found
}

func (cs *clients) start(ctx context.Context, method string, c *client) (*managed.Process, error) {
	command, err := cs.cfg.find(method, true)
	if err != nil {
		return nil, err
	}
	if c.folder == "" { // the client side keeps nothing
		if c.folder, err = os.MkdirTemp("", "pt-"); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	return managed.Start(ctx, managed.Options{
		Command: command, Args: cs.cfg.Arguments, State: c.folder, Method: method, Proxy: cs.cfg.Proxy.Text(), Log: cs.env.Log(),
	})
}

// stop ends the child; it is the caller's turn.
func (c *client) stop() {
	if c.child != nil {
		c.child.Stop()
	}
	if c.folder != "" {
		_ = os.RemoveAll(c.folder)
		c.folder = ""
	}
}

// Close ends all children.
func (cs *clients) Close() {
	cs.end()
	cs.mu.Lock()
	cs.closed = true
	all := cs.all
	cs.mu.Unlock()
	for _, c := range all {
		c.turn <- struct{}{}
		c.stop()
		<-c.turn
	}
}
