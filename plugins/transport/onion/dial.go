package onion

import (
	"context"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cretz/bine/control"
	"golang.org/x/net/proxy"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// attemptTime is how long one attempt of a dial may take: a descriptor may be late, and
// tor holds a request for two minutes.
const attemptTime = 20 * time.Second

// client is the client half: a tor with a SOCKS socket, started with the first dial.
type client struct {
	env sdk.Env
	cfg Config
	dir *directories

	turn   chan struct{} // held while tor starts; it guards the rest
	daemon *daemon
	folder string // its own
	keys   map[string]string
	closed bool

	life context.Context // ends with close, and with it what is being started
	end  context.CancelFunc
}

func newClient(env sdk.Env, cfg Config) agent.Client {
	c := &client{env: env, cfg: cfg, dir: newDirectories(time.Now), turn: make(chan struct{}, 1)}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

func errClosed() error { return &sdk.Error{Kind: sdk.Closed, Text: "the transport is closed"} }

// target is what an endpoint says.
type target struct {
	address, host string
	token         []byte
	key           *ecdh.PrivateKey // nil: none
	isolation     string
}

func bad(text string) error { return &sdk.Error{Kind: sdk.Invalid, Op: "endpoint", Text: text} }

func readTarget(to transport.Endpoint, with transport.Dial) (target, error) {
	var t target
	address, ok := strings.CutSuffix(strings.ToLower(to.Host), ".onion")
	if !ok || !validAddress(address) {
		return t, bad("the host is no onion address")
	}
	port := to.Port
	if port == 0 {
		port = 80
	}
	t.address, t.host = address, net.JoinHostPort(address+".onion", strconv.Itoa(int(port)))
	var err error
	if p := to.Params[paramToken]; p != "" {
		if t.token, err = base64.RawURLEncoding.DecodeString(p); err != nil || len(t.token) != tokenSize {
			return t, bad("the guest's token is malformed")
		}
	}
	secret := with.Key
	if p := to.Params[paramSecret]; p != "" {
		if secret, err = base64.RawURLEncoding.DecodeString(p); err != nil {
			return t, bad("the guest's key is malformed")
		}
	}
	if len(secret) > 0 && t.token != nil {
		if t.key, err = ecdh.X25519().NewPrivateKey(secret); err != nil {
			return t, bad("the guest's key is malformed")
		}
	}
	// Streams of one guest to one relay share a circuit, and nobody else's.
	sum := sha256.Sum256([]byte(t.host + "\x00" + string(t.token) + "\x00" + string(secret)))
	t.isolation = hex.EncodeToString(sum[:16])
	return t, nil
}

// Dial opens a stream. Names are never looked up: only onion addresses are taken.
func (c *client) Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	t, err := readTarget(to, with)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Limit, fmt.Errorf("the onion service was not reached within %v", c.cfg.Limit))
	defer cancel()
	ctx, closed := context.WithCancelCause(ctx)
	defer context.AfterFunc(c.life, func() { closed(errClosed()) })()
	defer closed(nil)
	d, err := c.tor(ctx)
	if err != nil {
		return nil, err
	}
	var last error
	for {
		select {
		case <-d.done:
			return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "dial", Err: d.err}
		case <-ctx.Done():
			return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "dial", Err: errors.Join(context.Cause(ctx), last)}
		case <-time.After(c.dir.wait(t.address)):
		}
		if err := c.authorise(ctx, d, t); err != nil {
			return nil, err
		}
		once, cancel := context.WithTimeout(ctx, attemptTime)
		conn, err := connect(once, filepath.Join(d.folder, socksSocket), t)
		refused := once.Err() == nil
		cancel()
		if err == nil {
			c.dir.reached(t.address)
			return conn, nil
		}
		if ctx.Err() != nil {
			continue
		}
		last = err
		if c.dir.failed(t.address, refused) {
			if err := c.forget(ctx, d); err != nil {
				last = errors.Join(last, err)
			}
		}
	}
}

// connect is one attempt. Exactly tor's answer is read, so that the socket itself is
// the stream.
func connect(ctx context.Context, socket string, t target) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	err = func() error {
		d, err := proxy.SOCKS5("tcp", t.host, &proxy.Auth{User: t.isolation, Password: "0"}, proxy.Direct)
		if err != nil {
			return err
		}
		with, ok := d.(interface {
			DialWithConn(ctx context.Context, c net.Conn, network, address string) (net.Addr, error)
		})
		if !ok {
			return errors.ErrUnsupported
		}
		if _, err := with.DialWithConn(ctx, raw, "tcp", t.host); err != nil {
			return err
		}
		if t.token != nil {
			_, err = raw.Write(t.token)
		}
		return err
	}()
	if err != nil {
		raw.Close()
		return nil, err
	}
	return agent.NewStream(raw, transport.Facts{Transport: Name, Hidden: true, Context: context.Background()}), nil
}

// forget lets tor forget whom it has asked. It forgets the guests' keys as well.
func (c *client) forget(ctx context.Context, d *daemon) error {
	if err := c.take(ctx); err != nil {
		return err
	}
	defer c.release()
	c.env.Log().Debug("tor is told to forget which directories it has asked")
	_, err := d.ask("SIGNAL NEWNYM")
	clear(c.keys)
	return err
}

// authorise gives tor the guest's key for the service.
func (c *client) authorise(ctx context.Context, d *daemon, t target) error {
	if t.key == nil {
		return nil
	}
	text := base64.StdEncoding.EncodeToString(t.key.Bytes())
	if err := c.take(ctx); err != nil {
		return err
	}
	defer c.release()
	if c.keys[t.address] == text {
		return nil
	}
	if _, err := d.ask("ONION_CLIENT_AUTH_ADD " + t.address + " x25519:" + text); err != nil {
		return err
	}
	c.keys[t.address] = text
	return nil
}

// tor gives the running tor, or starts one and waits until it can be used.
func (c *client) tor(ctx context.Context) (*daemon, error) {
	if err := c.take(ctx); err != nil {
		return nil, err
	}
	defer c.release()
	if c.closed {
		return nil, errClosed()
	}
	if c.daemon != nil {
		select {
		case <-c.daemon.done:
			c.env.Log().Warn("tor has ended", "error", c.daemon.err)
			c.daemon = nil
		default:
			return c.daemon, nil
		}
	}
	p, err := findTor(ctx, c.cfg.Program)
	if err != nil {
		return nil, err
	}
	if c.folder == "" { // the client keeps nothing
		if c.folder, err = makeRuntime(); err != nil {
			return nil, err
		}
	}
	for stall := c.cfg.Stall; ; stall *= 2 { // a slow machine, or network, comes through as well
		d, err := c.start(ctx, p, stall)
		if err == nil {
			c.daemon, c.keys = d, map[string]string{}
			return d, nil
		}
		if errors.Is(err, errStalled) && ctx.Err() == nil {
			// What it has learnt may be what holds it up, and the client keeps nothing anyway.
			c.env.Log().Info("tor made no progress, it is started anew")
			if err := os.RemoveAll(filepath.Join(c.folder, "data")); err != nil {
				return nil, err
			}
			continue
		}
		return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "tor", Err: err}
	}
}

var errStalled = errors.New("tor made no progress")

func (c *client) start(ctx context.Context, p program, stall time.Duration) (*daemon, error) {
	lines := append([]string{"SocksPort unix:" + quoted(filepath.Join(c.folder, socksSocket))}, c.cfg.Torrc...)
	d, err := startTor(ctx, p, c.folder, filepath.Join(c.folder, "data"), lines, c.env.Log())
	if err != nil {
		return nil, err
	}
	progress, ready := newWatch(stall), make(chan struct{})
	defer progress.stop()
	var once sync.Once
	err = d.follow(func(e control.Event) {
		switch e := e.(type) {
		case *control.StatusEvent:
			if e.Action != "BOOTSTRAP" {
				return
			}
			progress.moved()
			if e.Arguments["PROGRESS"] == "100" {
				once.Do(func() { close(ready) })
			}
		case *control.HSDescEvent:
			if e.Action == "REQUESTED" {
				c.dir.asked(strings.ToLower(e.Address))
			}
		}
	}, control.EventCodeStatusClient, control.EventCodeHSDesc)
	if err == nil {
		var phase string
		if phase, err = d.ask("GETINFO status/bootstrap-phase"); err == nil && strings.Contains(phase, "PROGRESS=100") {
			return d, nil
		}
	}
	if err == nil {
		select {
		case <-ready:
			return d, nil
		case <-d.done:
			err = d.err
		case <-progress.late:
			err = errStalled
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	d.stop()
	return nil, err
}

// take waits for the client's turn.
func (c *client) take(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *client) release() { <-c.turn }

// Close ends tor.
func (c *client) Close() {
	c.end()
	c.turn <- struct{}{}
	defer c.release()
	c.closed = true
	if c.daemon != nil {
		c.daemon.stop()
	}
	if c.folder != "" {
		_ = os.RemoveAll(c.folder)
		c.folder = ""
	}
}
