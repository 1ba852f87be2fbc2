package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// ErrInUse: another process answers on the socket.
var ErrInUse = errors.New("another relay runs on this data folder")

// ListenUnix opens the operator's socket: mode 0600 from the first moment, in
// place of one that nobody answers on, with connections of other users than
// this one and root closed at once, and those of processes that refuse, which may be
// nil, names by their id. Closing the listener removes the socket.
func ListenUnix(path string, refuse func(pid int) bool) (net.Listener, error) {
	if n := len(path); n >= 104 {
		return nil, fmt.Errorf("admin socket %s: the path is %d bytes long, more than the system allows; choose a shorter one", path, n)
	}
	if err := clearStale(path); err != nil {
		return nil, err
	}
	// Bound in a private folder and moved, so that it is never open to others.
	temp, err := os.MkdirTemp(filepath.Dir(path), ".s-*") // 0700
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, bareError(err))
	}
	defer os.RemoveAll(temp)
	inside := filepath.Join(temp, "s")
	if len(inside) >= 108 {
		return nil, fmt.Errorf("admin socket %s: the path is too long; choose a shorter one", path)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: inside, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, bareError(err))
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(inside, 0o600); err == nil {
		err = os.Rename(inside, path)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("admin socket %s: %w", path, bareError(err))
	}
	return &unixListener{UnixListener: l, path: path, refuse: refuse}, nil
}

// clearStale removes a socket that nobody answers on; anything else stays.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("admin socket %s: %w", path, bareError(err))
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("admin socket %s: something else has this name", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("admin socket %s: %w", path, ErrInUse)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("admin socket %s: %w", path, bareError(err))
	}
	return os.Remove(path)
}

type unixListener struct {
	*net.UnixListener
	path   string
	refuse func(pid int) bool
	once   sync.Once
}

// Accept gives connections of this user and root only, and none that is refused.
func (l *unixListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, pid, err := peer(c)
		own := int(uid) == os.Geteuid()
		// Outside of this process's world of ids there are none of its children.
		if err == nil && (uid == 0 || own) && !(own && pid != 0 && l.refuse != nil && l.refuse(pid)) {
			return c, nil
		}
		c.Close()
	}
}

// Close removes the socket if it is still this one.
func (l *unixListener) Close() error {
	l.once.Do(func() { _ = os.Remove(l.path) })
	return l.UnixListener.Close()
}

// Addr is the socket's final name.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// ListenTCP opens the additional address, which must be a loopback one written
// as a number.
func ListenTCP(ctx context.Context, address string) (net.Listener, error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !ap.Addr().Unmap().IsLoopback() {
		return nil, fmt.Errorf("admin.listen = %q: it must be a loopback address with a port, such as 127.0.0.1:9180", address)
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

func bareError(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	var o *net.OpError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	case errors.As(err, &o):
		return o.Err
	}
	return err
}
