package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
)

// maxPaths bounds what is remembered of endpoints.
const maxPaths = 64

// paths is what a client has learnt of its relay's endpoints, by route.key.
type paths struct {
	best  string               // of the last good session
	avoid map[string]time.Time // tampered with: not to be used before
	weak  map[string]time.Time // failed after the handshake: last until then
}

func newPaths() paths {
	return paths{avoid: make(map[string]time.Time), weak: make(map[string]time.Time)}
}

func (p *paths) doubt(key string, now time.Time) { note(p.weak, key, now) }

func (p *paths) distrust(key string, now time.Time) { note(p.avoid, key, now) }

func note(m map[string]time.Time, key string, now time.Time) {
	maps.DeleteFunc(m, func(_ string, until time.Time) bool { return !until.After(now) })
	if len(m) < maxPaths {
		m[key] = now.Add(distrust)
	}
}

// dialled is a connection whose message 2 has arrived and was found good; it has
// touched nothing at the relay yet.
type dialled struct {
	conn      net.Conn
	transport string
	endpoint  string
	began     time.Time

	hs       *noise.Handshake
	pattern  noise.Pattern
	key      Hex32 // the relay's Noise key of this handshake
	accepted ccp.Capabilities
	offered  ccp.Capabilities // all that the relay has
	channel  uint32
	rest     []byte
	named    []ccp.TransportKey // by the Confirm
}

// Close implements io.Closer, for the losers of a race.
func (d *dialled) Close() error { return d.conn.Close() }

// route is one endpoint with the dialer for it.
type route struct {
	Endpoint
	dialer transport.Dialer
	own    []byte // the device's private key for the transport; nil: the endpoint has one, or none is needed
}

func (e Endpoint) key() string {
	return e.Transport + " " + net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
}

// endpoints lists what can be dialled: the last good one first, then in the order
// of the program's dialers, then those that failed lately; distrusted ones are
// left out.
func (c *Client) endpoints() []route {
	c.mu.Lock()
	defer c.mu.Unlock()
	var first, rest, last []route
	now := c.opt.Now()
	for _, d := range c.opt.Dialers {
		if c.opt.Transport != "" && d.Name() != c.opt.Transport {
			continue
		}
		for _, e := range c.profile.Relay.Endpoints {
			key := e.key()
			if e.Transport != d.Name() || c.paths.avoid[key].After(now) {
				continue
			}
			routes := c.profile.routes(e, d)
			switch {
			case c.paths.weak[key].After(now):
				last = append(last, routes...)
			case key == c.paths.best:
				first = append(first, routes...)
			default:
				rest = append(rest, routes...)
			}
		}
	}
	return slices.Concat(first, rest, last)
}

// connect makes a session. If the relay has lost the resume token it asks for
// XK, which follows at once. silence is how long it may take before a second
// endpoint is tried beside another.
func (c *Client) connect(ctx context.Context, silence time.Duration) (*session, error) {
	if err := c.drawKeys(); err != nil {
		return nil, err
	}
	pattern, resume := c.plan()
	s, err := c.attempt(ctx, silence, pattern, resume)
	if code, ok := IsRefused(err); ok && code == ccp.CodeUseXK && pattern == noise.IK {
		c.mu.Lock()
		c.useXK = true
		c.mu.Unlock()
		return c.attempt(ctx, silence, noise.XK, resume)
	}
	return s, err
}

// attempt dials and makes the handshake: on several endpoints at once if the
// first ones are slow, but Confirm goes out on one connection only.
func (c *Client) attempt(ctx context.Context, silence time.Duration, pattern noise.Pattern, resume []byte) (*session, error) {
	routes := c.endpoints()
	if len(routes) == 0 {
		return nil, &Error{Kind: Unreachable, Text: "every way to the relay was found tampered with a moment ago; waiting"}
	}
	d, err := race(ctx, len(routes), silence, func(ctx context.Context, i int) (*dialled, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		name := routes[i].Transport
		c.events.tell(Event{Name: "trying", Transport: name})
		d, err := c.hello(ctx, routes[i], pattern)
		if err != nil {
			if !strings.HasPrefix(err.Error(), name) {
				err = fmt.Errorf("%s: %w", name, err)
			}
			c.failed(ctx, routes[i], err)
			return nil, err
		}
		return d, nil
	})
	if err != nil {
		return nil, err
	}
	limit, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	stop := context.AfterFunc(limit, func() { d.conn.Close() })
	s, err := c.confirm(d, resume)
	if !stop() && err == nil {
		err = broken("the relay took too long to answer the Confirm", context.Cause(limit))
	}
	if err == nil {
		return s, nil
	}
	d.conn.Close()
	if !isKind(err, Refused) {
		err = fmt.Errorf("%s: %w", d.transport, err)
	}
	c.events.tell(Event{Name: "failed", Transport: d.transport, Err: err})
	c.mu.Lock()
	if !isKind(err, Refused) && ctx.Err() == nil {
		c.paths.doubt(d.endpoint, c.opt.Now())
	}
	if isKind(err, Downgraded) {
		c.paths.distrust(d.endpoint, c.opt.Now())
	}
	c.mu.Unlock()
	if isKind(err, Downgraded) {
		c.events.tell(Event{Name: "downgraded", Transport: d.transport, Err: err})
	}
	return nil, err
}

// failed notes why an endpoint gave no connection.
func (c *Client) failed(ctx context.Context, r route, err error) {
	c.opt.Log.Debug("endpoint failed", "transport", r.Transport, "error", err)
	if !errors.Is(ctx.Err(), context.Canceled) { // else another way was faster
		c.events.tell(Event{Name: "failed", Transport: r.Transport, Err: err})
	}
	if !isKind(err, Downgraded) || ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	c.paths.distrust(r.key(), c.opt.Now())
	c.mu.Unlock()
	c.opt.Log.Warn("an endpoint was tampered with", "transport", r.Transport, "error", err)
	c.events.tell(Event{Name: "downgraded", Transport: r.Transport, Err: err})
}

// plan chooses the pattern: IK only with an unspent resume token and a completed
// XK under the same server key in the last 24 h.
func (c *Client) plan() (noise.Pattern, []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opt.Now()
	st := &c.state
	if len(st.Resume) != 32 || !st.ResumeUntil.After(now) {
		return noise.XK, nil
	}
	age := now.Sub(st.Confirmed)
	recent := age >= 0 && age < resumable && st.ResumeKey == c.profile.Relay.Noise
	if c.useXK || !recent || !c.promised().Has(ccp.ProofBinding|ccp.Resume) {
		return noise.XK, st.Resume
	}
	return noise.IK, st.Resume
}

// promised is the floor of what must be accepted; mu is held.
func (c *Client) promised() ccp.Capabilities { return c.profile.Relay.promised() }
