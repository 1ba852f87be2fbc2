package plugintest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/commucat/commucat/sdk"
)

// Lender is an Env that owns what plugins listen on, as the relay's does: a plugin
// gets a duplicate, the same network and address (also port 0) the same socket again.
// It is closed with the test.
type Lender struct {
	Logger *slog.Logger
	Folder string
	Site   http.Handler

	mu       sync.Mutex
	kept     map[string]net.Listener
	packets  map[string]net.PacketConn
	degraded error
	reports  int
}

var _ sdk.Env = (*Lender)(nil)

// NewLender makes a Lender whose log is the test's.
func NewLender(t testing.TB) *Lender {
	l := &Lender{
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)), Folder: t.TempDir(),
		kept: map[string]net.Listener{}, packets: map[string]net.PacketConn{},
	}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, ln := range l.kept {
			ln.Close()
		}
		for _, c := range l.packets {
			c.Close()
		}
	})
	return l
}

// Log implements sdk.Env.
func (l *Lender) Log() *slog.Logger { return l.Logger }

// State implements sdk.Env.
func (l *Lender) State() string { return l.Folder }

// Cover implements sdk.Env.
func (l *Lender) Cover() http.Handler { return l.Site }

// Degraded implements sdk.Env.
func (l *Lender) Degraded(reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.degraded = reason
	l.reports++
}

// Health is how often a plugin reported, and the last reason that it gave.
func (l *Lender) Health() (reports int, reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reports, l.degraded
}

// Listen implements sdk.Env.
func (l *Lender) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := network + " " + address
	ln, ok := l.kept[key]
	if !ok {
		var err error
		if ln, err = new(net.ListenConfig).Listen(ctx, network, address); err != nil {
			return nil, err
		}
		l.kept[key] = ln
	}
	f, err := duplicate(ln)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

// ListenPacket implements sdk.Env.
func (l *Lender) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := network + " " + address
	c, ok := l.packets[key]
	if !ok {
		var err error
		if c, err = new(net.ListenConfig).ListenPacket(ctx, network, address); err != nil {
			return nil, err
		}
		l.packets[key] = c
	}
	f, err := duplicate(c)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FilePacketConn(f)
}

// duplicate gives another descriptor of a socket and leaves the socket non-blocking,
// which File of package net does not.
func duplicate(s any) (*os.File, error) {
	c, ok := s.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var f *os.File
	var failed error
	err = raw.Control(func(fd uintptr) { f, failed = dup(fd) })
	return f, errors.Join(err, failed)
}
