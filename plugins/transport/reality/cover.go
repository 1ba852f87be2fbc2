package reality

import (
	"context"
	"crypto/tls"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
)

// cover is who answers strangers.
type cover interface {
	// dial opens a connection; from is the client's address.
	dial(ctx context.Context, from net.Addr) (net.Conn, error)
	// String is the cover as the configuration names it.
	String() string
	// keepAlive is what strangers' and clients' sockets get: everybody on the way sees the
	// segments. Whether a session's peer lives is the session's own question.
	keepAlive() net.KeepAliveConfig
	close()
}

// own is the relay's site with the operator's certificate, served by Go's TLS and HTTP as
// the relay's public listener serves it. It has no port: dial makes a pair of
// sockets.
type own struct {
	server *http.Server
	conns  chan net.Conn
	done   chan struct{}
	once   sync.Once
	served sync.WaitGroup
}

// The numbers are those of the relay's own front, so that one site behaves alike on all
// its ports.
func newOwn(h http.Handler, certificate tls.Certificate, log *slog.Logger) *own {
	o := &own{conns: make(chan net.Conn), done: make(chan struct{})}
	o.server = &http.Server{
		Handler: h,
		TLSConfig: &tls.Config{
			MinVersion:       tls.VersionTLS13,
			CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
			NextProtos:       []string{"h2", "http/1.1"},
			Certificates:     []tls.Certificate{certificate},
		},
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       75 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          stdlog.New(panics{log}, "", 0),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          100,
			MaxReadFrameSize:              16 << 10,
			MaxReceiveBufferPerStream:     1 << 20,
			MaxReceiveBufferPerConnection: 1 << 20,
			WriteByteTimeout:              60 * time.Second,
		},
	}
	o.served.Go(func() { _ = o.server.ServeTLS(o, "", "") })
	return o
}

// panics passes on what net/http says of a handler that panicked, without the address it
// names. Everything else that it says is about what strangers sent.
type panics struct{ log *slog.Logger }

func (p panics) Write(b []byte) (int, error) {
	if _, rest, ok := strings.Cut(string(b), ": panic serving "); ok {
		_, what, _ := strings.Cut(rest, ": ")
		p.log.Error("the site panicked", slog.String("panic", strings.TrimSpace(what)))
	}
	return len(b), nil
}

func (o *own) String() string { return coverSelf }

// keepAlive is the relay's own front's.
func (o *own) keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 3 * time.Minute, Interval: 30 * time.Second, Count: 4}
}

func (o *own) dial(ctx context.Context, from net.Addr) (net.Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	select {
	case o.conns <- &ownConn{CloseWriter: theirs, Conn: theirs, from: from}:
		return ours, nil
	case <-o.done:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = ours.Close()
	_ = theirs.Close()
	return nil, err
}

func (o *own) close() {
	_ = o.server.Close()
	_ = o.Close()
	o.served.Wait()
}

// Accept, Close and Addr make it the listener of its own server.
func (o *own) Accept() (net.Conn, error) {
	select {
	case c := <-o.conns:
		return c, nil
	case <-o.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (o *own) Close() error {
	o.once.Do(func() { close(o.done) })
	return nil
}

// Addr implements net.Listener.
func (o *own) Addr() net.Addr { return &net.UnixAddr{Name: coverSelf, Net: "unix"} }

// ownConn shows the client's address to the site.
type ownConn struct {
	net.Conn
	CloseWriter interface{ CloseWrite() error }
	from        net.Addr
}

func (c *ownConn) RemoteAddr() net.Addr { return c.from }
func (c *ownConn) CloseWrite() error    { return c.CloseWriter.CloseWrite() }

// newCover makes the configured one.
func newCover(s *settings, env sdk.Env, find lookup) (cover, error) {
	if s.certificate == nil {
		return newSite(s.Cover, find, connectTCP, env.Log())
	}
	h := env.Cover()
	if h == nil {
		return nil, &sdk.ConfigError{Key: "cover", Text: "is \"self\", but no site is lent to this transport"}
	}
	return newOwn(h, *s.certificate, env.Log()), nil
}
