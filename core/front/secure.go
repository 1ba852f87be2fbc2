package front

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/commucat/commucat/core/internal/crew"
)

// secure is a listener whose connections are through with their TLS handshake, or have
// failed in it. The handshake needs a large stack; on net/http's goroutine, which lives
// as long as the connection, most of that stack would stay.
//
// net/http makes the handshake as well: on a connection that has it behind it, that
// does nothing but answer the outcome, so it is net/http that speaks to and logs
// whoever failed.
type secure struct {
	net.Listener
	config *tls.Config
	limit  time.Duration // of a handshake
	log    *slog.Logger
	work   *crew.Crew
	out    chan accepted
	over   chan struct{} // closed by Close

	mu      sync.Mutex
	closed  bool
	pending map[net.Conn]struct{}
}

type accepted struct {
	conn net.Conn
	err  error
}

func newSecure(l net.Listener, c *tls.Config, limit time.Duration, log *slog.Logger) *secure {
	s := &secure{
		Listener: l, config: c, limit: limit, log: log, out: make(chan accepted), over: make(chan struct{}),
		pending: make(map[net.Conn]struct{}),
	}
	s.work = crew.New(s.over)
	go s.listen()
	return s
}

// listen accepts until the listener is closed. An error waits to be taken before it
// goes on, and whoever takes it decides how long that is.
func (s *secure) listen() {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			if !s.hand(accepted{err: err}) {
				return
			}
			continue
		}
		if s.begin(c) {
			s.work.Go(func() { s.shake(c) })
		}
	}
}

func (s *secure) hand(a accepted) bool {
	select {
	case s.out <- a:
		return true
	case <-s.over:
		return false
	}
}

// begin notes a connection that Close has to end.
func (s *secure) begin(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	s.pending[c] = struct{}{}
	return true
}

func (s *secure) shake(c net.Conn) {
	defer func() { // what one connection does to us may cost no other, as in net/http
		if v := recover(); v != nil {
			s.log.Error("tls handshake", "panic", v)
			s.done(c)
			_ = c.Close()
		}
	}()
	t := tls.Server(c, s.config)
	_ = c.SetDeadline(time.Now().Add(s.limit)) // net/http lifts it
	_ = t.HandshakeContext(context.Background())
	s.done(c)
	if !s.hand(accepted{conn: t}) {
		_ = c.Close()
	}
}

func (s *secure) done(c net.Conn) {
	s.mu.Lock()
	delete(s.pending, c)
	s.mu.Unlock()
}

// Accept returns the next connection, a *tls.Conn.
func (s *secure) Accept() (net.Conn, error) {
	select {
	case a := <-s.out:
		return a.conn, a.err
	case <-s.over:
		return nil, net.ErrClosed
	}
}

// Close ends the listener and every handshake under way.
func (s *secure) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	for c := range s.pending {
		_ = c.Close()
	}
	s.mu.Unlock()
	if closed {
		return nil
	}
	close(s.over)
	return s.Listener.Close()
}
