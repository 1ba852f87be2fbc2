package pluginhost

import (
	"context"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/sdk/transport"
)

// Conn is a connection that a transport plugin has accepted.
type Conn struct {
	net.Conn
	facts transport.Facts
	from  *transportRun
}

func newConn(c net.Conn, name string, from *transportRun) *Conn {
	f := transport.FactsOf(c)
	// What the plugin calls itself does not count, nor do claims that only the relay
	// can make.
	f.Transport, f.Compat, f.Entered, f.Context = name, false, false, context.Background()
	return &Conn{Conn: c, facts: f, from: from}
}

// Path implements transport.PathFacts; Transport is the configured name.
func (c *Conn) Path() transport.Facts { return c.facts }

// SetContext gives the connection values that the relay attaches to it; before it is
// handed to a session.
func (c *Conn) SetContext(ctx context.Context) { c.facts.Context = ctx }

// NetConn is the connection inside.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// CloseWrite is half-close where the transport has it.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(transport.CloseWriter); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// bare says that the connection is a network socket, which the plugin is out of: it
// outlives the process.
func (c *Conn) bare() bool {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	domain := unix.AF_UNIX
	_ = raw.Control(func(fd uintptr) { domain, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN) })
	return err == nil && domain != unix.AF_UNIX
}
