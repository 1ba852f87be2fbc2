package front

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/commucat/commucat/core/admission"
	"github.com/commucat/commucat/core/metrics"
)

// listener asks admission before anything is read or allocated for TLS.
type listener struct {
	net.Listener
	front *Front
}

// keepAlive finds dead peers without waking radios often.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 3 * time.Minute, Interval: 30 * time.Second, Count: 4}

// Accept returns the next admitted connection; refused ones are closed at once.
func (l *listener) Accept() (net.Conn, error) {
	f := l.front
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			f.opt.Metrics.Inc(metrics.AcceptErrors)
			return nil, err
		}
		ticket, err := f.admit(c)
		if err != nil {
			reset(c)
			continue
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetKeepAliveConfig(keepAlive)
		}
		return &conn{Conn: c, ticket: ticket, stall: f.opt.StallTimeout}, nil
	}
}

func (f *Front) admit(c net.Conn) (*admission.Ticket, error) {
	if f.opt.Admission == nil {
		return nil, nil
	}
	src := admission.Source{Transport: f.opt.Name}
	if ap, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
		src.Addr = ap.Addr()
	}
	t, err := f.opt.Admission.Admit(src)
	if err != nil {
		return nil, err
	}
	if s, ok := c.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			t.SetSocket(raw)
		}
	}
	return t, nil
}

// reset closes without leaving a socket in TIME_WAIT.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// conn gives its ticket back when it closes, and ends a write that does not
// advance.
type conn struct {
	net.Conn
	ticket *admission.Ticket
	stall  time.Duration
	own    atomic.Bool // someone above set a write deadline
	closed atomic.Bool
}

// Write bounds each piece of at most 64 KiB by the stall time, unless a
// deadline was set.
func (c *conn) Write(b []byte) (n int, err error) {
	const piece = 64 << 10
	for first := true; first || len(b) > 0; first = false {
		part := b[:min(len(b), piece)]
		if !c.own.Load() {
			_ = c.Conn.SetWriteDeadline(time.Now().Add(c.stall))
		}
		m, err := c.Conn.Write(part)
		n += m
		if err != nil {
			return n, err
		}
		b = b[len(part):]
	}
	return n, nil
}

// SetWriteDeadline replaces the stall time until it is set to zero.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.own.Store(!t.IsZero())
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline sets both deadlines.
func (c *conn) SetDeadline(t time.Time) error {
	c.own.Store(!t.IsZero())
	return c.Conn.SetDeadline(t)
}

// CloseWrite is half-close; crypto/tls looks for it.
func (c *conn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

// SyscallConn gives access to the socket.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, syscall.ENOTSUP
}

// Close gives the ticket back once.
func (c *conn) Close() error {
	err := c.Conn.Close()
	if !c.closed.Swap(true) {
		c.ticket.SetSocket(nil)
		c.ticket.Release()
	}
	return err
}

// connContext puts the connection's ticket in the context of its requests.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if own, ok := c.(*conn); ok && own.ticket != nil {
		return admission.NewContext(ctx, own.ticket)
	}
	return ctx
}
