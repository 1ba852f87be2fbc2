package reality

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// Lingering: a socket that is closed with unread bytes in it resets the peer, which
// may lose what was sent before. So both halves end their side and read on for a
// little while.
const (
	lingerTime  = 3 * time.Second
	lingerBytes = 1 << 20
)

// aLongTimeAgo wakes whoever waits.
var aLongTimeAgo = time.Unix(1, 0)

// keeper is what TCP connections have.
type keeper interface {
	SetKeepAliveConfig(net.KeepAliveConfig) error
}

// socket is a TCP connection whose Close lingers.
type socket struct {
	net.Conn
	closing atomic.Bool
	ended   atomic.Bool // the peer has sent its end, or an error was read
	reading sync.Mutex
}

// Read is for one goroutine at a time, as TLS has it.
func (s *socket) Read(p []byte) (int, error) {
	if s.closing.Load() {
		return 0, net.ErrClosed
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.closing.Load() {
		return 0, net.ErrClosed
	}
	n, err := s.Conn.Read(p)
	if err != nil {
		if s.closing.Load() {
			return n, net.ErrClosed
		}
		if !isTimeout(err) {
			s.ended.Store(true)
		}
	}
	return n, err
}

// Close ends the sending side, wakes reader and writer, and leaves the rest to a
// goroutine that lives for lingerTime at most.
func (s *socket) Close() error {
	if s.closing.Swap(true) {
		return nil
	}
	_ = s.SetDeadline(aLongTimeAgo)
	if s.ended.Load() || transport.CloseWrite(s.Conn) != nil {
		return s.Conn.Close()
	}
	go s.linger()
	return nil
}

func (s *socket) linger() {
	s.reading.Lock()
	defer s.reading.Unlock()
	_ = s.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, s.Conn, lingerBytes)
	_ = s.Conn.Close()
}

// CloseWrite ends the sending side of the socket.
func (s *socket) CloseWrite() error { return transport.CloseWrite(s.Conn) }

// NetConn is the TCP connection.
func (s *socket) NetConn() net.Conn { return s.Conn }

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// reset closes a connection so that its peer sees a reset where the kind of socket
// can do that.
func reset(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0)
	}
	_ = c.Close()
}

// tlsStream is what both halves' TLS connections have.
type tlsStream interface {
	net.Conn
	CloseWrite() error
}

// stream is a session's connection.
type stream struct {
	tlsStream
	facts  transport.Facts
	raw    net.Conn // below TLS
	closed atomic.Bool
	over   func() // called once, at the first Close; may be nil
}

// cut ends the stream at once, without a farewell.
func (s *stream) cut() {
	reset(s.raw)
	_ = s.Close()
}

// Path implements transport.PathFacts.
func (s *stream) Path() transport.Facts { return s.facts }

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.tlsStream.Read(p)
	if err != nil && s.closed.Load() {
		err = net.ErrClosed
	}
	return n, err
}

// Close ends the stream; what was written before still arrives.
func (s *stream) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	err := s.tlsStream.Close()
	if s.over != nil {
		s.over()
	}
	if isTimeout(err) || errors.Is(err, net.ErrClosed) {
		return nil // the peer did not read its farewell
	}
	return err
}
