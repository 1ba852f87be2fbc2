package handoff

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/sdk/transport"
)

// Stream is a handed-over stream as a net.Conn. All methods may be called
// concurrently.
type Stream struct {
	file          *os.File
	raw           syscall.RawConn
	kind          Kind
	local, remote net.Addr
	facts         transport.Facts
	tcp           bool
	closed        atomic.Bool
	onClose       func()
	r, w          half
}

// half is what the callback of a raw read or write works on. The callback is made
// once, so that a read or write allocates nothing.
type half struct {
	mu  sync.Mutex
	p   []byte
	n   int
	err error
	do  func(fd uintptr) bool
}

// NewStream takes a descriptor over. onClose is called once, at Close; it may be
// nil. The descriptor is closed if the answer is an error.
func NewStream(fd int, m *Message, onClose func()) (*Stream, error) {
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := &Stream{file: os.NewFile(uintptr(fd), "stream"), kind: m.Kind, facts: m.Facts, onClose: onClose}
	s.local, s.remote = Address(m.Local), Address(m.Remote)
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	s.tcp = err == nil && domain != unix.AF_UNIX
	if err == nil {
		// Whoever cleared O_NONBLOCK just now gets a file that cannot be polled.
		err = s.file.SetDeadline(time.Time{})
	}
	if err == nil {
		s.raw, err = s.file.SyscallConn()
	}
	if err != nil {
		s.file.Close()
		return nil, err
	}
	s.r.do, s.w.do = s.recv, s.send
	return s, nil
}

// Address gives TCP addresses their own type.
func Address(a transport.Addr) net.Addr {
	if ap := transport.ParseAddrPort(a.Text); ap.IsValid() {
		switch a.Net {
		case "tcp":
			return net.TCPAddrFromAddrPort(ap)
		case "udp":
			return net.UDPAddrFromAddrPort(ap)
		}
	}
	return a
}

// recv reads into r.p; false: wait.
func (s *Stream) recv(fd uintptr) bool {
	for {
		s.r.n, s.r.err = recv(int(fd), s.r.p)
		switch s.r.err {
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			return true
		}
	}
}

// send writes what is left of w.p; false: wait.
func (s *Stream) send(fd uintptr) bool {
	for s.w.n < len(s.w.p) {
		n, err := send(int(fd), s.w.p[s.w.n:])
		switch err {
		case nil:
			s.w.n += n
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			s.w.err = err
			return true
		}
	}
	return true
}

// recv and send are never given an empty slice.
func recv(fd int, p []byte) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func send(fd int, p []byte) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Read implements net.Conn.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.p, s.r.n, s.r.err = p, 0, nil
	err := s.raw.Read(s.r.do)
	s.r.p = nil
	if err == nil {
		err = s.r.err
	}
	if err != nil {
		return 0, s.wrap("read", err)
	}
	if s.r.n == 0 {
		if s.closed.Load() { // the end that Close made for the peer
			return 0, s.wrap("read", net.ErrClosed)
		}
		return 0, io.EOF
	}
	return s.r.n, nil
}

// Write implements net.Conn.
func (s *Stream) Write(p []byte) (int, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.p, s.w.n, s.w.err = p, 0, nil
	err := s.raw.Write(s.w.do)
	s.w.p = nil
	if err == nil {
		err = s.w.err
	}
	if err != nil {
		return s.w.n, s.wrap("write", err)
	}
	return s.w.n, nil
}

func (s *Stream) wrap(op string, err error) error {
	if s.closed.Load() {
		err = net.ErrClosed
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: s.remote.Network(), Source: s.local, Addr: s.remote, Err: err}
}

// Close implements net.Conn. The peer sees the end even if the sender kept a
// duplicate.
func (s *Stream) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	_ = s.raw.Control(func(fd uintptr) {
		if s.tcp {
			// A lingering close would hold a thread.
			_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
		}
		_ = unix.Shutdown(int(fd), unix.SHUT_RDWR)
	})
	err := s.file.Close()
	if s.onClose != nil {
		s.onClose()
	}
	return err
}

// CloseWrite implements transport.CloseWriter.
func (s *Stream) CloseWrite() error {
	var failed error
	err := s.raw.Control(func(fd uintptr) { failed = unix.Shutdown(int(fd), unix.SHUT_WR) })
	if err == nil {
		err = failed
	}
	if err != nil {
		return s.wrap("close", err)
	}
	return nil
}

// LocalAddr implements net.Conn.
func (s *Stream) LocalAddr() net.Addr { return s.local }

// RemoteAddr implements net.Conn.
func (s *Stream) RemoteAddr() net.Addr { return s.remote }

// SetDeadline implements net.Conn.
func (s *Stream) SetDeadline(t time.Time) error { return s.deadline(s.file.SetDeadline(t)) }

// SetReadDeadline implements net.Conn.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.deadline(s.file.SetReadDeadline(t)) }

// SetWriteDeadline implements net.Conn.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.deadline(s.file.SetWriteDeadline(t)) }

func (s *Stream) deadline(err error) error {
	if err != nil {
		return s.wrap("set", err)
	}
	return nil
}

// SyscallConn gives the socket. Plain reads and writes on it may block the thread:
// only calls with MSG_DONTWAIT are safe.
func (s *Stream) SyscallConn() (syscall.RawConn, error) { return s.raw, nil }

// Path implements transport.PathFacts.
func (s *Stream) Path() transport.Facts { return s.facts }

// Kind says what the descriptor is.
func (s *Stream) Kind() Kind { return s.kind }

// hungUp says that the peer has closed its end altogether (socketpairs).
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}
