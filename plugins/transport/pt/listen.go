package pt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/plugins/transport/pt/managed"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Limits of the server half.
const (
	headerTime = 20 * time.Second // for the child to say whom it has accepted, and for the client's byte
	startTime  = 30 * time.Second
	firstStart = 10 * time.Second // that Listen waits for
)

// readyByte is what the client sends first, and the relay's answer. The client begins:
// what obfs4's server side says together with its handshake stays unread in the
// client's until more comes.
const readyByte = 0

// server is a listening child.
type server struct {
	cfg     Config
	env     sdk.Env
	method  string
	command string
	folder  string // the child's state
	temp    bool   // the folder is thrown away
	bind    netip.AddrPort
	keep    bool // the port was drawn, and is kept

	local    net.Addr // ExtORPort or ORPort
	cookie   *managed.Cookie
	arrivals *agent.Arrivals

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	once    sync.Once

	mu      sync.Mutex
	line    managed.Line // of the child that is ready, or was
	reason  error        // why it is not ready
	settled chan struct{}
	fatal   error
}

var _ transport.Server = (*server)(nil)

// listen starts the child. It returns when that is ready, or cannot be, or has taken
// long: then the transport is reported as degraded until it is.
func listen(ctx context.Context, env sdk.Env, c Config) (agent.Listener, error) {
	s := &server{
		cfg: c, env: env, method: c.method(), settled: make(chan struct{}), reason: &sdk.Error{Kind: sdk.Unavailable, Op: "pt", Text: "the program is starting"},
	}
	var err error
	if s.command, err = c.find(s.method, false); err != nil {
		return nil, err
	}
	if mode := c.Options["iat-mode"]; s.method == "obfs4" && mode != "" && mode != "0" {
		env.Log().Warn("obfs4 with an iat-mode other than 0 carries some 200 kilobytes a second", slog.String("iat_mode", mode))
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.prepare(ctx); err != nil {
		s.cancel()
		s.discard()
		return nil, err
	}
	s.running.Go(s.supervise)
	wait := time.NewTimer(firstStart)
	defer wait.Stop()
	select {
	case <-s.settled:
		s.mu.Lock()
		err = s.fatal
		s.mu.Unlock()
	case <-ctx.Done():
		err = ctx.Err()
	case <-wait.C:
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// prepare makes the folder, the listener and the cookie.
func (s *server) prepare(ctx context.Context) error {
	if s.env.State() == "" {
		s.env.Log().Warn("no state folder is lent: links end with this process")
		dir, err := os.MkdirTemp("", "pt-")
		if err != nil {
			return err
		}
		s.folder, s.temp = dir, true
	} else {
		s.folder = filepath.Join(s.env.State(), s.method)
		if err := os.MkdirAll(s.folder, 0o700); err != nil {
			return err
		}
	}
	var err error
	if s.bind, err = parseListen(s.cfg.Listen); err != nil {
		return err
	}
	s.keep = s.bind.Port() == 0
	if port := s.keptPort(); s.keep && port != 0 {
		s.bind = netip.AddrPortFrom(s.bind.Addr(), port)
	}
	// The protocol knows no unix sockets. The child is let in by the cookie.
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // accepted sockets are handed on as what they are: TCP
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.local = ln.Addr()
	if s.cookie, err = managed.NewCookie(s.cookieFile()); err != nil {
		return errors.Join(err, ln.Close())
	}
	s.arrivals = agent.Receive(ln, headerTime, s.env.Log(), s.header)
	return nil
}

// cookieFile has a name of its own in each process: an upgrade runs two.
func (s *server) cookieFile() string {
	return filepath.Join(s.folder, "cookie-"+strconv.Itoa(int(transport.AddrPort(s.local).Port())))
}

const portFile = "port"

func (s *server) keptPort() uint16 {
	b, err := os.ReadFile(filepath.Join(s.folder, portFile))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// keepPort notes a drawn port, since links name it. Some programs print an address that
// does not exist.
func (s *server) keepPort(at netip.AddrPort) {
	if !s.keep || at.Port() == 0 || at.Port() == s.bind.Port() || at.Addr() != s.bind.Addr() {
		return
	}
	s.mu.Lock() // a child that is late is ready while Addr is asked for
	s.bind = netip.AddrPortFrom(s.bind.Addr(), at.Port())
	s.mu.Unlock()
	if err := os.WriteFile(filepath.Join(s.folder, portFile), fmt.Appendln(nil, at.Port()), 0o600); err != nil {
		s.env.Log().Warn("the port cannot be kept: links end with this process", slog.Any("error", err))
		return
	}
	s.env.Log().Info("a TCP port was drawn; open it in the firewall", slog.Int("port", int(at.Port())))
}

// header reads what the child says of a client, and the client's byte.
func (s *server) header(c net.Conn) (transport.Facts, error) {
	facts := transport.Facts{Transport: Name, Hidden: !s.cfg.Extended, Context: context.Background()}
	if s.cfg.Extended {
		a, err := managed.AcceptExtOR(c, s.cookie)
		if err != nil {
			return facts, fmt.Errorf("extended ORPort: %w", err)
		}
		facts.Remote, facts.Hidden = a.Client, !a.Client.IsValid()
	}
	if s.cfg.Ready {
		return facts, answer(c)
	}
	return facts, nil
}

// answer tells a client that the relay is there.
func answer(c net.Conn) error {
	var b [1]byte
	if _, err := c.Read(b[:]); err != nil {
		return err
	}
	if b[0] != readyByte {
		return errors.New("a client did not begin with its byte")
	}
	_, err := c.Write(b[:])
	return err
}

// Accept gives clients.
func (s *server) Accept() (net.Conn, error) { return s.arrivals.Accept() }

// Addr is where the child listens. Its network is the method: the socket is the
// child's, and cannot be lent to another process.
func (s *server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.line.Addr
	if !at.IsValid() {
		at = s.bind
	}
	return transport.Addr{Net: s.method, Text: at.String()}
}

// Close ends the child and the streams that it carries.
func (s *server) Close() error {
	s.once.Do(func() {
		s.cancel()
		s.arrivals.Close()
		s.running.Wait()
		_ = os.Remove(s.cookieFile())
		s.discard()
	})
	return nil
}

func (s *server) discard() {
	if s.temp {
		_ = os.RemoveAll(s.folder)
	}
}

// Health implements agent.Listener.
func (s *server) Health() error {
	if s.ctx.Err() != nil {
		return agent.ErrNotListening()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}
