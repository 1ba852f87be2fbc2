package amnesiawg

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

const (
	// dialLimit bounds a dial: by then it is known what is wrong, as far as it can be.
	dialLimit = 14 * time.Second
	// linger is how long a tunnel stays when its last stream has ended.
	linger = 5 * time.Second
)

// tunnels are the client halves of one plugin value. Dials to one relay with one key
// share a tunnel: WireGuard knows one place for each key.
type tunnels struct {
	mu   sync.Mutex
	open map[[32]byte]*shared
}

// shared is a tunnel with the number of those who use it.
type shared struct {
	t     *tunnel
	uses  int
	timer *time.Timer // closes it
}

func newTunnels() *tunnels { return &tunnels{open: map[[32]byte]*shared{}} }

// dial opens a stream to a relay.
func (all *tunnels) dial(ctx context.Context, env sdk.Env, cfg Config, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	e, err := conf.Parse(to)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if cfg.Carrier == "system" {
		return dialSystem(ctx, e, with)
	}
	deadline := time.Now().Add(dialLimit)
	s, release, err := all.get(e, to, with.Key, cfg, env.Log())
	if err != nil {
		return nil, err
	}
	c, err := s.t.dial(ctx, deadline)
	if err != nil {
		release(false)
		return nil, err
	}
	s.t.hold(c, true)
	c.OnClose(func() {
		s.t.hold(c, false)
		go release(waitGone(c))
	})
	return c, nil
}

// waitGone waits until what a closed stream sent has arrived, or is given up.
func waitGone(c interface{ Gone() bool }) bool {
	for until := time.Now().Add(farewell); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		if c.Gone() {
			break
		}
	}
	return true
}

// get gives a tunnel and how to give it back, saying whether it is any good.
func (all *tunnels) get(e conf.Endpoint, to transport.Endpoint, key []byte, cfg Config, log *slog.Logger) (*shared, func(good bool), error) {
	id := sha256.Sum256([]byte(fmt.Sprint(to.Host, " ", to.Port, " ", ccp.ParamsOf(to.Params), " ", string(key))))
	all.mu.Lock()
	defer all.mu.Unlock()
	s := all.open[id]
	if s == nil {
		// The first key of a link is for the apps (conf.File).
		private, err := e.Key(key, 1+rand.IntN(conf.KeysPerLink-1))
		if err != nil {
			return nil, nil, err
		}
		t, err := newTunnel(e, private, cfg, log)
		if err != nil {
			return nil, nil, err
		}
		s = &shared{t: t}
		all.open[id] = s
	}
	s.uses++
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	return s, func(good bool) { all.release(id, s, good) }, nil
}

func (all *tunnels) release(id [32]byte, s *shared, good bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if s.uses--; s.uses > 0 {
		return
	}
	end := func() {
		all.mu.Lock()
		idle := s.uses == 0 && all.open[id] == s
		if idle {
			delete(all.open, id)
		}
		all.mu.Unlock()
		if idle {
			s.t.close()
		}
	}
	if !good { // the next dial looks the relay's address up again, and takes another key
		delete(all.open, id)
		go s.t.close()
		return
	}
	s.timer = time.AfterFunc(linger, end)
}

// dialSystem uses a tunnel that the system has: AmneziaWG's app with the file that
// conf.File writes.
func dialSystem(ctx context.Context, e conf.Endpoint, with transport.Dial) (net.Conn, error) {
	open := with.DialTCP
	if open == nil {
		open = new(net.Dialer).DialContext
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	at := netip.AddrPortFrom(conf.ServerAddr(e.Server), conf.Port)
	c, err := open(ctx, "tcp", at.String())
	if err != nil {
		return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "tunnel", Text: "the relay is not reached through the system's tunnel: is it up, with the file of this relay?", Err: err}
	}
	return c, nil
}

// candidates gives where a relay may be, the preferred ones first. Families without a
// route are left out.
func candidates(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, &sdk.Error{Kind: sdk.Unavailable, Op: "name", Text: "the relay's name has no address", Err: shortenLookup(err, host)}
	}
	var out []netip.Addr
	for _, a := range found {
		a = a.Unmap()
		if hasRoute(a) {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		for _, a := range found {
			out = append(out, a.Unmap())
		}
	}
	return out, nil
}

// hasRoute says whether packets to an address could leave; nothing is sent.
func hasRoute(a netip.Addr) bool {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// shortenLookup drops the name from a resolver's error: links are not for logs.
func shortenLookup(err error, host string) error {
	return lookupError(strings.ReplaceAll(err.Error(), host, "the name"))
}

type lookupError string

func (e lookupError) Error() string { return string(e) }
