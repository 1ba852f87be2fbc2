package pt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/plugins/transport/pt/managed"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// supervise keeps a child running.
func (s *server) supervise() {
	agent.Keep(s.ctx, agent.Pauses{Least: 250 * time.Millisecond, Most: time.Minute, Well: time.Minute}, s.life, func(err error) {
		var fatal *managed.Fatal
		s.unwell(err, errors.As(err, &fatal))
	})
}

// life is that of one child.
func (s *server) life() error {
	child, err := s.start()
	if err != nil {
		return err
	}
	defer child.Stop()
	select {
	case <-child.Done():
		return child.Err()
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// start starts a child that listens.
func (s *server) start() (*managed.Process, error) {
	ctx, cancel := context.WithTimeout(s.ctx, startTime)
	defer cancel()
	at := transport.AddrPort(s.local)
	o := managed.Options{
		Command: s.command, Args: s.cfg.Arguments, State: s.folder, Method: s.method, Log: s.env.Log(),
		Server: &managed.Server{Bind: s.bind, ORPort: at, Options: argsOf(s.cfg.Options)},
	}
	if s.cfg.Extended {
		// A child that goes to the plain ORPort all the same is refused there.
		o.Server.Extended, o.Server.Cookie = at, s.cookieFile()
	}
	child, err := managed.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	line := child.Method()
	s.keepPort(line.Addr)
	s.mu.Lock()
	s.line, s.reason = line, nil
	s.settle(nil)
	s.mu.Unlock()
	s.env.Degraded(nil)
	s.env.Log().Info("child is ready", slog.String("method", s.method), slog.Int("pid", child.PID()), slog.String("address", line.Addr.String()))
	return child, nil
}

// settle ends the wait of listen; s.mu is held.
func (s *server) settle(fatal error) {
	select {
	case <-s.settled:
	default:
		s.fatal = fatal
		close(s.settled)
	}
}

// unwell reports why there is no child.
func (s *server) unwell(err error, fatal bool) {
	reason := &sdk.Error{Kind: sdk.Unavailable, Op: s.method, Err: err}
	s.mu.Lock()
	s.reason = reason
	if fatal {
		s.settle(&sdk.Error{Kind: sdk.Invalid, Op: s.method, Err: err})
	}
	s.mu.Unlock()
	s.env.Degraded(reason)
	s.env.Log().Warn("child has ended or did not start", slog.Any("error", err))
}

// Parameters of our endpoints.
const (
	paramMethod = "m" // the transport's name in the program, if it is not the endpoint's
	paramArgs   = "a" // arguments, as a client's SOCKS login has them
	paramReady  = "r" // "1": the client begins with one byte, which the relay answers
)

// Invite implements transport.Server. What the child prints goes into the link. A
// pluggable transport knows no guests: all of them have the same arguments.
func (s *server) Invite(_ context.Context, host string, _ transport.Guest) (transport.Endpoint, error) {
	s.mu.Lock()
	line, reason, bind := s.line, s.reason, s.bind
	s.mu.Unlock()
	if reason != nil {
		return transport.Endpoint{}, reason
	}
	to := transport.Endpoint{Transport: Name, Host: host, Port: line.Addr.Port(), Params: map[string]string{paramMethod: s.method}}
	if bind.Port() != 0 {
		to.Port = bind.Port() // webtunnel prints an address that does not exist
	}
	if s.cfg.Advertise != "" {
		h, p, err := net.SplitHostPort(s.cfg.Advertise)
		if err != nil {
			return transport.Endpoint{}, err
		}
		if h != "" {
			to.Host = h
		}
		port, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return transport.Endpoint{}, err
		}
		to.Port = uint16(port)
	}
	args := line.Args
	for _, a := range argsOf(s.cfg.Client) {
		args = args.Set(a.Key, a.Value)
	}
	if len(args) > 0 {
		to.Params[paramArgs] = args.Encode(managed.Semicolon)
	}
	if s.cfg.Ready {
		to.Params[paramReady] = "1"
	}
	if n := len(ccp.ParamsOf(to.Params)); n > ccp.MaxParams {
		return transport.Endpoint{}, &sdk.Error{Kind: sdk.Invalid, Op: s.method, Text: fmt.Sprintf("its arguments need %d bytes in a link, at most %d fit", n, ccp.MaxParams)}
	}
	return to, nil
}

// Revoke implements transport.Server: there is nothing to end here, since all clients
// share what the child printed. The relay itself refuses who was revoked.
func (s *server) Revoke(context.Context, string) error { return nil }
