package amnesiawg

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/bind"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/inner"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

const (
	// backlog is how many streams wait to be accepted.
	backlog = 1024
	// sweepEvery is how often idle and expired peers are looked for, timesEvery
	// how often their times are written.
	sweepEvery = 5 * time.Second
	timesEvery = 5 * time.Minute
	// farewell is how long the last bytes of streams may take when all is closed,
	// and how long a reset has before its peer is cut off.
	farewell = 3 * time.Second
	goodbye  = 50 * time.Millisecond
)

// server is the server half: a listener of streams.
type server struct {
	env     sdk.Env
	log     *slog.Logger
	cfg     Config
	private [32]byte
	public  [32]byte
	outlets []*outlet
	closers []io.Closer // sockets
	net     *inner.Net
	dev     *device.Device
	bind    *bind.Bind
	ln      *inner.Listener
	guests  *registry
	diary   *diary
	desk    *desk // answers questions
	gone    func()
	stop    chan struct{}
	running sync.WaitGroup

	entering sync.Mutex // of enter

	mu     sync.Mutex
	peers  map[[32]byte]*peer
	byAddr map[netip.Addr]*peer
	closed bool
	ended  bool
	dying  []*inner.Conn // closed, and perhaps not yet acknowledged
}

var (
	_ transport.Server    = (*server)(nil)
	_ transport.Registrar = (*server)(nil)
)

func newServer(env sdk.Env, cfg Config, id *identity) (*server, error) {
	s := &server{
		env: env, log: env.Log(), cfg: cfg, private: id.private(), stop: make(chan struct{}), gone: func() {},
		peers: map[[32]byte]*peer{}, byAddr: map[netip.Addr]*peer{},
	}
	var err error
	if s.public, err = conf.PublicKey(s.private); err != nil {
		return nil, err
	}
	if s.guests, err = newRegistry(s.public, cfg.Guests, time.Now, env.State()); err != nil {
		return nil, err
	}
	if s.diary, err = openDiary(env.State()); err != nil {
		return nil, err
	}
	s.desk = newDesk(s)
	return s, nil
}

// start puts WireGuard and the network inside on the sockets.
func (s *server) start(sockets []bind.Socket) error {
	var err error
	if s.net, err = inner.New(inner.Options{Address: conf.ServerAddr(s.public), MTU: s.cfg.MTU, Padding: s.cfg.Padding}); err != nil {
		return err
	}
	if s.ln, err = s.net.Listen(conf.Port, backlog); err != nil {
		return err
	}
	s.bind, err = bind.New(bind.Options{
		Private: s.private, Sockets: sockets, Guard: s,
		Stray: s.desk.stray, StraySize: s.desk.asker.QuestionSize(),
	})
	if err != nil {
		return err
	}
	s.dev = newDevice(s.net, s.bind, s.log)
	if err := s.dev.IpcSet("private_key=" + hex.EncodeToString(s.private[:]) + "\n"); err != nil {
		return err
	}
	if err := s.dev.Up(); err != nil {
		return err
	}
	s.running.Go(s.sweep)
	s.recall()
	return nil
}

// newDevice makes a WireGuard device. What it says names keys and addresses, so it
// is for debugging alone.
func newDevice(n *inner.Net, b *bind.Bind, log *slog.Logger) *device.Device {
	logger := &device.Logger{Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf}
	if log.Enabled(context.Background(), slog.LevelDebug) {
		logger.Errorf = func(format string, args ...any) { log.Debug("wireguard", "text", sprint(format, args)) }
	}
	return device.NewDevice(n.Device(), b, logger)
}

// Addr is the first UDP address.
func (s *server) Addr() net.Addr { return s.outlets[0].conns[0].LocalAddr() }

// Accept waits for a stream.
func (s *server) Accept() (net.Conn, error) {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				s.log.Warn("a stream could not be accepted", "error", err)
			}
			return nil, err
		}
		if a := s.welcome(c); a != nil {
			return a, nil
		}
	}
}

// welcome gives a stream its facts, or ends it: nil.
func (s *server) welcome(c *inner.Conn) net.Conn {
	from := transport.AddrPort(c.RemoteAddr()).Addr()
	s.mu.Lock()
	p := s.byAddr[from]
	if p == nil || s.ended || len(p.conns) >= s.cfg.Streams {
		s.mu.Unlock()
		c.Abort()
		return nil
	}
	p.conns[c] = struct{}{}
	facts := transport.Facts{Transport: Name, Remote: p.outer}
	s.mu.Unlock()
	c.OnClose(func() { s.parted(p, c) })
	return stream{c, facts}
}

// stream is an accepted stream. RemoteAddr is the device's address inside the tunnel,
// the facts have the one outside.
type stream struct {
	*inner.Conn
	facts transport.Facts
}

// Path implements transport.PathFacts.
func (s stream) Path() transport.Facts { return s.facts }

// parted is told of every stream that is closed.
func (s *server) parted(p *peer, c *inner.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(p.conns, c)
	p.seen = time.Now()
	s.dying = append(s.dying, c)
	s.bury()
	if s.closed {
		s.endLocked()
	}
}

// bury forgets closed streams that nothing is owed to any more.
func (s *server) bury() {
	left := s.dying[:0]
	for _, c := range s.dying {
		if !c.Gone() {
			left = append(left, c)
		}
	}
	clear(s.dying[len(left):])
	s.dying = left
}

// Invite implements transport.Server.
func (s *server) Invite(_ context.Context, host string, g transport.Guest) (transport.Endpoint, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return transport.Endpoint{}, &sdk.Error{Kind: sdk.Closed, Op: "invite", Text: "the transport does not listen any more"}
	}
	e := s.invitation(host, s.choose(g.ID))
	var gone [][32]byte
	var err error
	switch {
	case g.ID == "" && g.Public == nil:
	case g.Public != nil:
		if len(g.Public) != 32 {
			return transport.Endpoint{}, &sdk.Error{Kind: sdk.Invalid, Op: "invite", Text: "the device's key has not 32 bytes"}
		}
		gone, err = s.guests.device(g.ID, [32]byte(g.Public), g.Expires)
	default:
		e.Secret = new([32]byte)
		*e.Secret, gone, err = s.guests.link(g.ID, g.Expires)
	}
	if err != nil {
		return transport.Endpoint{}, err
	}
	s.cut(gone)
	return e.Transport(), nil
}

// Register implements transport.Registrar.
func (s *server) Register(_ context.Context, guests []transport.Guest) error {
	gone, added, refused, err := s.guests.devices(guests)
	s.cut(gone)
	if added > 0 && err == nil {
		s.recall() // those whom the state folder did not know any more
	}
	if err != nil {
		return err
	}
	if refused > 0 {
		return &sdk.Error{Kind: sdk.Conflict, Op: "register", Text: fmt.Sprintf("%d of %d devices were not let in: their keys are no keys, or another guest's, or there are as many as guests in the configuration allows", refused, len(guests))}
	}
	return nil
}

// Replacing implements transport.Replacer.
func (s *server) Replacing(context.Context) error {
	s.guests.replacing()
	return nil
}

// Replaced implements transport.Replacer.
func (s *server) Replaced(context.Context) error {
	gone, err := s.guests.replaced()
	if len(gone) > 0 {
		s.log.Info("devices that were revoked meanwhile are out", "devices", len(gone))
	}
	s.cut(gone)
	return err
}

// choose gives an outlet that is offered; a guest always gets the same one.
func (s *server) choose(id string) *outlet {
	var offered []*outlet
	for _, o := range s.outlets {
		if o.offered {
			offered = append(offered, o)
		}
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return offered[int(h.Sum32())%len(offered)]
}

// Revoke implements transport.Server.
func (s *server) Revoke(_ context.Context, id string) error {
	gone, err := s.guests.revoke(id)
	s.cut(gone)
	return err
}

// Close takes no more streams. Those that were accepted live on, and with them the
// sessions that carry them; when the last one has ended all else does.
func (s *server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.gone()
	s.ln.Close()
	done := s.endLocked()
	s.mu.Unlock()
	// The folder is free for another instance, even while streams live on.
	s.keep()
	if done != nil {
		<-done
	}
	return nil
}

// keep writes what the state folder must hold, for the last time.
func (s *server) keep() {
	s.diary.close()
	if err := s.guests.close(); err != nil {
		s.log.Warn("the times of the last sessions were not written", "error", err)
	}
}

// endLocked ends the server if no stream is left, and gives a channel that is closed
// when it has.
func (s *server) endLocked() <-chan struct{} {
	if s.ended {
		return nil
	}
	for _, p := range s.peers {
		if len(p.conns) > 0 {
			return nil
		}
	}
	s.ended = true
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.end()
	}()
	return done
}

// end waits for last bytes and gives everything back.
func (s *server) end() {
	for until := time.Now().Add(farewell); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		s.bury()
		left := len(s.dying)
		s.mu.Unlock()
		if left == 0 {
			break
		}
	}
	s.shut()
}

// shut gives back what start and open took.
func (s *server) shut() {
	close(s.stop)
	s.running.Wait()
	if s.dev != nil {
		s.dev.Close()
	}
	if s.net != nil {
		s.net.Close()
	}
	if s.bind != nil {
		s.bind.Wait()
	}
	for _, c := range s.closers {
		_ = c.Close()
	}
	s.keep()
}

// probe is a client of this server for as long as a handshake takes.
func (s *server) probe(ctx context.Context) error {
	private, public, err := conf.NewKey()
	if err != nil {
		return err
	}
	s.guests.visit([32]byte(public), true)
	defer func() {
		s.guests.visit([32]byte(public), false)
		s.cut([][32]byte{[32]byte(public)})
	}()
	o := s.outlets[0]
	at := loopback(o.conns[0])
	e := conf.Endpoint{Host: at.Addr().String(), Ports: []uint16{at.Port()}, Server: s.public, Wire: o.wire, MTU: s.cfg.MTU}
	// Lent, because a server half may make no sockets of its own.
	local := "127.0.0.1:0"
	if at.Addr().Is6() {
		local = "[::1]:0"
	}
	c, err := s.env.ListenPacket(ctx, "udp", local)
	if err != nil {
		return err
	}
	t, err := newTunnelOn(c, e, [32]byte(private), Config{}, s.log)
	if err != nil {
		return err
	}
	defer t.close()
	return t.connect(ctx, time.Now().Add(dialLimit))
}

// Known implements bind.Guard.
func (s *server) Known(static [32]byte) bool {
	_, ok := s.guests.known(static)
	return ok
}

// Admit implements bind.Guard.
func (s *server) Admit(static [32]byte, stamp obfs.Stamp, from *bind.Endpoint) bool {
	expires, ok := s.guests.known(static)
	if !ok || !s.guests.advance(static, stamp) {
		return false
	}
	return s.admit(static, expires, from)
}
