package masque

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Limits of the site, the same over QUIC and TCP, and the same as the relay's own.
const (
	maxHeader   = 32 << 10
	idleTime    = 75 * time.Second
	bindTries   = 16 // to find a port that is free for UDP and TCP
	publicSize  = ed25519.PublicKeySize
	innerMost   = 4     // connections in one tunnel
	innerAll    = 10000 // connections in all tunnels
	altSvcValid = 30 * 24 * time.Hour
)

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// open binds the sockets and starts to serve.
func (s *server) open(ctx context.Context, env sdk.Env, cert tls.Certificate, now func() time.Time) error {
	udp, tcp, err := s.bind(ctx, env)
	if err != nil {
		return err
	}
	s.addr = udp.LocalAddr()
	udp = s.ready(udp)
	if tcp != nil {
		s.serveTCP(bounded{tcp, newCrowd(s.cfg.Connections, s.cfg.PerSource, now)}, cert)
	}
	visitors := newCrowd(s.cfg.Connections, s.cfg.PerSource, now)
	if s.cfg.UDP {
		s.inner = newInner()
		tr := &quic.Transport{Conn: s.inner.packets.over(udp), ConnContext: newCrowd(innerAll, innerMost, now).admit}
		conf := s.quicConfig()
		conf.InitialPacketSize, conf.Tracer = smallestPacket, nil // no tunnel within a tunnel needs it
		if err := s.serveQUIC(tr, cert, conf, &site{server: s, inside: true}, s.inner.began); err != nil {
			return err
		}
	}
	tr := s.transport(udp, visitors)
	if err := s.serveQUIC(tr, cert, s.quicConfig(), &site{server: s}, withConn); err != nil {
		return err
	}
	if s.cfg.Chained == "" {
		return nil
	}
	pc, err := env.ListenPacket(ctx, "udp", s.cfg.Chained)
	if err != nil {
		return fmt.Errorf("udp %s: %w", s.cfg.Chained, err)
	}
	if s.inner == nil {
		s.inner = newInner()
	}
	s.inner.chained = pc.LocalAddr()
	conf := s.quicConfig()
	conf.InitialPacketSize, conf.DisablePathMTUDiscovery = smallestPacket, true
	return s.serveQUIC(s.transport(s.ready(pc), visitors), cert, conf, &site{server: s, hidden: true}, withConn)
}

func (s *server) transport(pc net.PacketConn, c *crowd) *quic.Transport {
	return &quic.Transport{
		Conn: pc, StatelessResetKey: &s.secrets.reset, TokenGeneratorKey: &s.secrets.token,
		VerifySourceAddress: c.suspicious, ConnContext: c.admit,
	}
}

// bind binds UDP and, where it is ours, TCP on the same port number. TCP comes first:
// far more of its ports are taken by clients of this machine.
func (s *server) bind(ctx context.Context, env sdk.Env) (net.PacketConn, net.Listener, error) {
	if s.cfg.TCP != tcpOwn {
		udp, err := env.ListenPacket(ctx, "udp", s.cfg.Listen)
		if err != nil {
			err = fmt.Errorf("udp %s: %w", s.cfg.Listen, err)
		}
		return udp, nil, err
	}
	host, port, _ := net.SplitHostPort(s.cfg.Listen)
	for try := 1; ; try++ {
		tcp, err := env.Listen(ctx, "tcp", s.cfg.Listen)
		if err != nil {
			if port != "0" && errors.Is(err, syscall.EADDRINUSE) {
				err = fmt.Errorf("%w; if it is the relay's own listener that has this port, set tcp = \"front\"", err)
			}
			return nil, nil, fmt.Errorf("tcp %s: %w", s.cfg.Listen, err)
		}
		at := net.JoinHostPort(host, strconv.Itoa(int(transport.AddrPort(tcp.Addr()).Port())))
		udp, err := env.ListenPacket(ctx, "udp", at)
		if err == nil {
			return udp, tcp, nil
		}
		_ = tcp.Close()
		if port != "0" || try == bindTries {
			return nil, nil, fmt.Errorf("udp %s: %w", at, err)
		}
	}
}

// ready gives a socket its buffers, and says where they are small.
func (s *server) ready(pc net.PacketConn) net.PacketConn {
	s.closers = append(s.closers, func() { _ = pc.Close() })
	out, got := forQUIC(pc)
	if got > 0 && got < bufferSize {
		s.log.Warn("small buffers of the UDP socket cost throughput; raise net.core.rmem_max and net.core.wmem_max",
			"bytes", got, "wanted", bufferSize)
	}
	return out
}

// serveQUIC serves the site on one QUIC transport until Close; began is told of each
// connection.
func (s *server) serveQUIC(tr *quic.Transport, cert tls.Certificate, conf *quic.Config, site *site,
	began func(context.Context, *quic.Conn) context.Context) error {
	ln, err := tr.ListenEarly(http3.ConfigureTLSConfig(serverTLS(cert, http3.NextProtoH3)), conf)
	if err != nil {
		return fmt.Errorf("quic: %w", err)
	}
	h3 := &http3.Server{
		Handler: site, EnableDatagrams: s.cfg.UDP, MaxHeaderBytes: maxHeader, IdleTimeout: idleTime,
		ConnContext: began, Logger: slog.New(quiet{s.log.Handler()}),
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = h3.ServeListener(ln)
	}()
	s.stops = append(s.stops, func() { _ = ln.Close() })
	pc := tr.Conn
	// In this order: sockets close last.
	s.closers = append([]func(){func() {
		_ = h3.Close()
		<-over
		_ = tr.Close()
		_ = pc.Close()
	}}, s.closers...)
	return nil
}

type connKey struct{}

// withConn is http3.Server.ConnContext.
func withConn(ctx context.Context, c *quic.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

func connOf(ctx context.Context) *quic.Conn {
	c, _ := ctx.Value(connKey{}).(*quic.Conn)
	return c
}

// quiet keeps the records of HTTP/3 about single requests and connections out of the
// log: strangers make as many of them as they like.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, l)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }
func (q quiet) WithGroup(n string) slog.Handler      { return quiet{q.Handler.WithGroup(n)} }
