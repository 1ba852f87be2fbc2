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
	"sync/atomic"
	"time"

	"github.com/cretz/bine/control"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// attemptTime is how long one attempt of a dial may take: a descriptor may be late, and
// tor holds a request for two minutes.
const attemptTime = 20 * time.Second

// stuckTime is after how long an attempt that was given up has got stuck. A circuit to a
// service that died while it was built waits for the service for a minute and more, and
// tor gives it to later streams of the same user. An introduction that is only slow takes
// as long, and a new circuit would begin it anew, with new work for a relay that is flooded:
// so it is after several in a row that the next attempt is another user's.
const (
	stuckTime = 8 * time.Second
	stuckRow  = 2
)

// maxStuck bounds the guests of which that is remembered.
const maxStuck = 256

// client is the client half: a tor with a SOCKS socket, started with the first dial.
type client struct {
	env sdk.Env
	cfg Config
	dir *directories

	turn     chan struct{} // it guards the rest
	daemon   *daemon
	starting *launch // nil: none is being started
	folder   string  // its own
	keys     map[string]string
	closed   bool

	mu    sync.Mutex
	stuck map[string]*stuck // by isolation

	life context.Context // ends with close, and with it what is being started
	end  context.CancelFunc
}

// stuck is what is remembered of a guest's attempts that got stuck.
type stuck struct {
	users int       // how often the user has changed
	row   int       // attempts in a row
	last  time.Time // when the last one of them ended
}

func newClient(env sdk.Env, cfg Config) agent.Client {
	c := &client{env: env, cfg: cfg, dir: newDirectories(time.Now), turn: make(chan struct{}, 1), stuck: map[string]*stuck{}}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

func errClosed() error { return &sdk.Error{Kind: sdk.Closed, Text: "the transport is closed"} }

// target is what an endpoint says.
type target struct {
	address   string // without ".onion"
	port      uint16
	token     []byte
	key       *ecdh.PrivateKey // nil: none
	isolation string
}

func bad(text string) error { return &sdk.Error{Kind: sdk.Invalid, Op: "endpoint", Text: text} }

func readTarget(to transport.Endpoint, with transport.Dial) (target, error) {
	var t target
	address, ok := strings.CutSuffix(strings.ToLower(to.Host), ".onion")
	if !ok || !validAddress(address) {
		return t, bad("the host is no onion address")
	}
	t.address, t.port = address, to.Port
	if t.port == 0 {
		t.port = 80
	}
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
	host := net.JoinHostPort(address+".onion", strconv.Itoa(int(t.port)))
	sum := sha256.Sum256([]byte(host + "\x00" + string(t.token) + "\x00" + string(secret)))
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
		began := time.Now()
		conn, err := connect(once, filepath.Join(d.folder, socksSocket), c.user(t.isolation), t)
		refused := once.Err() == nil
		cancel()
		if err != nil && ctx.Err() != nil {
			continue // it is the dial that ends: of the circuit that says nothing
		}
		c.attempted(t.isolation, began, time.Now(), err == nil)
		if err == nil {
			c.dir.reached(t.address)
			return conn, nil
		}
		last = err
		if c.dir.failed(t.address, refused) {
			if err := c.forget(ctx, d); err != nil {
				last = errors.Join(last, err)
			}
		}
	}
}

// user is the name under which tor keeps a guest's streams together.
func (c *client) user(isolation string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.stuck[isolation]; p != nil && p.users > 0 {
		return isolation + "-" + strconv.Itoa(p.users)
	}
	return isolation
}

// attempted notes how an attempt ended. Several that got stuck in a row make the guest's
// later streams leave the circuits of now; those at the same time count as one.
func (c *client) attempted(isolation string, began, ended time.Time, reached bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.stuck[isolation]
	if reached || ended.Sub(began) < stuckTime {
		if p != nil {
			p.row = 0
		}
		return
	}
	if p == nil {
		if len(c.stuck) >= maxStuck {
			clear(c.stuck)
		}
		p = &stuck{}
		c.stuck[isolation] = p
	}
	if began.Before(p.last) {
		return
	}
	p.last = ended
	if p.row++; p.row == stuckRow {
		p.row = 0
		p.users++
	}
}

// connect is one attempt. Exactly tor's answer is read, so that the socket itself is
// the stream.
func connect(ctx context.Context, socket, user string, t target) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	err = askSocks(raw, user, t.address+".onion", t.port)
	if err == nil && t.token != nil {
		_, err = raw.Write(t.token)
	}
	if !stop() {
		err = context.Cause(ctx)
	}
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

// launch is a start of tor that dials wait for. It goes on when they have given up: what
// has been fetched from the network by then is not lost.
type launch struct {
	done   chan struct{}
	daemon *daemon
	err    error
	phase  atomic.Pointer[string]
}

// phase is what tor said last of its start.
func (l *launch) said() string {
	if p := l.phase.Load(); p != nil {
		return *p
	}
	return "nothing is known of its progress yet"
}

// tor gives the running tor, or starts one and waits until it can be used.
func (c *client) tor(ctx context.Context) (*daemon, error) {
	if err := c.take(ctx); err != nil {
		return nil, err
	}
	if c.closed {
		c.release()
		return nil, errClosed()
	}
	if d := c.daemon; d != nil {
		select {
		case <-d.done:
			c.env.Log().Warn("tor has ended", "error", d.err)
			c.daemon = nil
		default:
			c.release()
			return d, nil
		}
	}
	l := c.starting
	if l == nil {
		l = &launch{done: make(chan struct{})}
		c.starting = l
		go c.launch(l)
	}
	c.release()
	select {
	case <-l.done:
		return l.daemon, l.err
	case <-ctx.Done():
		return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "tor", Text: "it is still starting: " + l.said(), Err: context.Cause(ctx)}
	}
}

// launch starts tor for everybody who waits.
func (c *client) launch(l *launch) {
	d, err := c.open(l)
	if err != nil && c.life.Err() != nil {
		err = errClosed()
	}
	c.turn <- struct{}{}
	defer c.release()
	c.starting = nil
	if err == nil {
		c.daemon, c.keys = d, map[string]string{}
	}
	l.daemon, l.err = d, err
	close(l.done)
}

func (c *client) open(l *launch) (*daemon, error) {
	p, err := findTor(c.life, c.cfg.Program)
	if err != nil {
		return nil, err
	}
	folder, err := c.place()
	if err != nil {
		return nil, err
	}
	for stall := c.cfg.Stall; ; stall *= 2 { // a slow machine, or network, comes through as well
		d, err := c.start(p, folder, stall, l)
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, errStalled) || c.life.Err() != nil {
			return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "tor", Err: err}
		}
		// What it has learnt may be what holds it up, and the client keeps nothing anyway.
		c.env.Log().Info("tor made no progress, it is started anew", "phase", l.said())
		if err := os.RemoveAll(filepath.Join(folder, "data")); err != nil {
			return nil, err
		}
	}
}

// place makes the client's folder; the client keeps nothing.
func (c *client) place() (folder string, err error) {
	c.turn <- struct{}{}
	defer c.release()
	if c.closed {
		return "", errClosed()
	}
	if c.folder == "" {
		c.folder, err = makeRuntime()
	}
	return c.folder, err
}

var errStalled = errors.New("tor made no progress")

func (c *client) start(p program, folder string, stall time.Duration, l *launch) (*daemon, error) {
	lines := append([]string{"SocksPort unix:" + quoted(filepath.Join(folder, socksSocket)) + " ExtendedErrors"}, c.cfg.Torrc...)
	d, err := startTor(c.life, p, folder, filepath.Join(folder, "data"), lines, c.env.Log())
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(c.life, d.kill)()
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
			phase := e.Arguments["PROGRESS"] + " %, " + e.Arguments["SUMMARY"]
			l.phase.Store(&phase)
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
		case <-c.life.Done():
			err = c.life.Err()
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
	c.closed = true
	l := c.starting
	c.release()
	if l != nil {
		<-l.done
	}
	c.turn <- struct{}{}
	defer c.release()
	if c.daemon != nil {
		c.daemon.stop()
	}
	if c.folder != "" {
		_ = os.RemoveAll(c.folder)
		c.folder = ""
	}
}
