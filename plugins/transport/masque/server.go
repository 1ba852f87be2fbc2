package masque

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

const (
	// acceptQueue is how many streams may wait for Accept.
	acceptQueue = 128
	// sweepEvery is how often forgotten guests are looked for.
	sweepEvery = time.Hour
)

// server is the listener.
type server struct {
	cfg     Config
	log     *slog.Logger
	cover   http.Handler
	secrets *secrets
	revoked *revocations
	door    *door
	guests  *guests
	pin     *[32]byte
	targets []target
	dialUDP udpDialer
	large   sync.Pool // buffers of busy tunnels

	addr    net.Addr
	inner   *innerEndpoint // nil without CONNECT-UDP
	stops   []func()       // take nothing new
	closers []func()       // end everything, in the order of closing

	accepted chan net.Conn
	done     chan struct{}
	once     sync.Once
}

var _ transport.Server = (*server)(nil)

// serverOptions are what tests set otherwise.
type serverOptions struct {
	now     func() time.Time
	dialUDP udpDialer
}

// listen is transport.Funcs.Listen.
func listen(ctx context.Context, env sdk.Env, c Config) (net.Listener, error) {
	return newServer(ctx, env, c, serverOptions{now: time.Now, dialUDP: dialPublic})
}

func newServer(ctx context.Context, env sdk.Env, c Config, o serverOptions) (_ *server, err error) {
	cover := env.Cover()
	if cover == nil {
		return nil, &sdk.Error{Kind: sdk.Invalid, Text: "no cover site is lent to it; strangers would see that there is none"}
	}
	s := &server{
		cfg: c, log: env.Log(), cover: cover, dialUDP: o.dialUDP,
		accepted: make(chan net.Conn, acceptQueue), done: make(chan struct{}),
		guests: newGuests(c.Sessions, int64(c.Bytes), o.now),
	}
	for _, text := range c.Targets {
		t, err := parseTarget(text)
		if err != nil {
			return nil, &sdk.ConfigError{Key: "targets", Text: err.Error()}
		}
		s.targets = append(s.targets, t)
	}
	if s.secrets, err = openSecrets(env.State()); err != nil {
		return nil, err
	}
	cert, pin, err := certificate(c, env.State(), o.now())
	if err != nil {
		return nil, err
	}
	s.pin = pin
	if s.revoked, err = openRevocations(filepath.Join(env.State(), revokedFile)); err != nil {
		return nil, err
	}
	s.door = &door{secrets: s.secrets, revoked: s.revoked, bearer: c.Bearer, now: o.now}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	if err = s.open(ctx, env, cert, o.now); err != nil {
		return nil, err
	}
	go s.sweep()
	return s, nil
}

func (s *server) sweep() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-t.C:
			s.guests.sweep()
		}
	}
}

// Accept implements net.Listener.
func (s *server) Accept() (net.Conn, error) {
	select {
	case <-s.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

var errBusy = errors.New("the relay does not take streams fast enough")

// hand gives a stream to Accept.
func (s *server) hand(c net.Conn) error {
	select {
	case <-s.done:
		return net.ErrClosed
	default:
	}
	select {
	case s.accepted <- c:
	default:
		return errBusy
	}
	if s.closed() { // Close may have emptied the queue just before
		s.discard()
	}
	return nil
}

// discard closes what waits for Accept.
func (s *server) discard() {
	for {
		select {
		case c := <-s.accepted:
			_ = c.Close()
		default:
			return
		}
	}
}

// closed says that Close was called.
func (s *server) closed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Addr implements net.Listener: the UDP address.
func (s *server) Addr() net.Addr { return s.addr }

// Close takes no more connections and streams. Those that are open go on, and with the
// last of them the site and its sockets end.
func (s *server) Close() error {
	s.once.Do(func() {
		close(s.done)
		for _, f := range s.stops {
			f()
		}
		s.discard()
		empty := s.guests.empty()
		select {
		case <-empty:
			s.end()
		default:
			go func() {
				<-empty
				s.end()
			}()
		}
	})
	return nil
}

// end closes connections and sockets.
func (s *server) end() {
	for _, f := range s.closers {
		f()
	}
	_ = s.revoked.close()
}

// Invite implements transport.Server. With a zero Guest it answers where the site
// is; a client needs a guest's key id beside that.
func (s *server) Invite(_ context.Context, host string, g transport.Guest) (transport.Endpoint, error) {
	e := transport.Endpoint{Transport: Name, Host: host, Port: transport.AddrPort(s.addr).Port(), Params: map[string]string{paramPin: pinWeb}}
	if s.pin != nil {
		e.Params[paramPin] = encode(s.pin[:])
	}
	if s.cfg.Name != "" && s.cfg.Name != host {
		e.Params[transport.ParamName] = s.cfg.Name
	}
	if s.cfg.TCP == tcpOwn {
		e.Params[paramTCP] = "1"
	}
	if s.inner != nil && s.inner.chained != nil {
		e.Params[paramChained] = strconv.Itoa(int(transport.AddrPort(s.inner.chained).Port()))
	}
	if g.ID == "" {
		return e, nil
	}
	return e, s.invite(e.Params, g)
}

func (s *server) invite(params map[string]string, g transport.Guest) error {
	t := grant{guest: g.ID, generation: s.revoked.generation(g.ID), expires: g.Expires}
	if len(g.ID) > maxGuest {
		return &sdk.Error{Kind: sdk.Invalid, Text: errGuest.Error()}
	}
	public := g.Public
	if public == nil {
		key, err := s.secrets.linkKey(t)
		if err != nil {
			return err
		}
		params[paramKey] = encode(key.Seed())
		public = publicOf(key)
	}
	if len(public) != publicSize {
		return &sdk.Error{Kind: sdk.Invalid, Text: fmt.Sprintf("the guest's public key has %d bytes instead of %d", len(public), publicSize)}
	}
	id, err := s.secrets.keyID(t, public)
	if err != nil {
		return err
	}
	params[paramKeyID] = encode(id)
	if s.cfg.Bearer {
		if params[paramBearer], err = s.secrets.bearerToken(t); err != nil {
			return err
		}
	}
	return nil
}

// Revoke implements transport.Server: all keys made for this guest so far are worth
// nothing from now on, also after a restart.
func (s *server) Revoke(_ context.Context, id string) error {
	err := s.revoked.revoke(id)
	s.guests.expel(id)
	return err
}
