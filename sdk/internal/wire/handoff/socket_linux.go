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

	"github.com/commucat/commucat/sdk"
)

// Socket is one end of a hand-off connection. Send and Receive may be called
// concurrently, Receive by one goroutine at a time.
type Socket struct {
	file     *os.File
	raw      syscall.RawConn
	counters *Counters
	closed   atomic.Bool

	mu  sync.Mutex // of Send
	buf []byte
	in  [MaxMessage]byte
	oob [64]byte
}

// Pair makes a connection: one end for this process, the other one to be given to
// another.
func Pair(c *Counters) (*Socket, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	s, err := NewSocket(fds[0], c)
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return s, os.NewFile(uintptr(fds[1]), "handoff"), nil
}

// NewSocket takes a descriptor over that is one end of a Pair; it is closed if the
// answer is an error.
func NewSocket(fd int, c *Counters) (*Socket, error) {
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		if err == nil {
			unix.Close(fd)
		}
		return nil, errors.New("the hand-off socket is missing")
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := &Socket{file: os.NewFile(uintptr(fd), "handoff"), counters: c}
	var err error
	if s.raw, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, err
	}
	return s, nil
}

// Send sends a message and the descriptor, unless that is negative. The descriptor
// stays the caller's. While the receiver's queue is full it waits, until deadline
// unless that is zero.
func (s *Socket) Send(m *Message, fd int, deadline time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = m.Append(s.buf[:0])
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	if err := s.file.SetWriteDeadline(deadline); err != nil {
		return s.wrap(err)
	}
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		var failed error
		err := s.raw.Write(func(out uintptr) bool {
			for {
				failed = unix.Sendmsg(int(out), s.buf, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
				if failed != unix.EINTR {
					return failed != unix.EAGAIN
				}
			}
		})
		if err != nil {
			return s.wrap(err)
		}
		switch failed {
		case nil:
			return nil
		case unix.ETOOMANYREFS, unix.ENOBUFS, unix.ENOMEM:
			// Too many descriptors on their way: nothing tells when there are fewer.
			if s.closed.Load() || !deadline.IsZero() && time.Now().Add(pause).After(deadline) {
				return s.wrap(failed)
			}
			time.Sleep(pause)
		default:
			return s.wrap(failed)
		}
	}
}

// Receive gives the next message that can be used, and its descriptor or -1. The
// descriptor is the caller's. What cannot be used is closed and counted. The end of
// the other process is io.EOF.
func (s *Socket) Receive() (Message, int, error) {
	for {
		var n, oobn, flags int
		var failed error
		err := s.raw.Read(func(in uintptr) bool {
			for {
				n, oobn, flags, failed = receive(int(in), s.in[:], s.oob[:])
				if failed != unix.EINTR {
					return failed != unix.EAGAIN
				}
			}
		})
		if err == nil {
			err = failed
		}
		switch {
		case err == unix.ECONNRESET:
			return Message{}, -1, io.EOF
		case err != nil:
			return Message{}, -1, s.wrap(err)
		}
		fds := rights(s.oob[:oobn])
		if n == 0 && len(fds) == 0 {
			return Message{}, -1, io.EOF
		}
		m, ok := s.check(s.in[:n], fds, flags)
		if !ok {
			for _, fd := range fds {
				unix.Close(fd)
			}
			continue
		}
		if len(fds) == 0 {
			return m, -1, nil
		}
		return m, fds[0], nil
	}
}

func (s *Socket) check(b []byte, fds []int, flags int) (Message, bool) {
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		s.counters.Truncated.Add(1)
		return Message{}, false
	}
	m, err := Parse(b)
	if err != nil {
		s.counters.Malformed.Add(1)
		return Message{}, false
	}
	if len(fds) > 1 {
		s.counters.Foreign.Add(1)
		return Message{}, false
	}
	return m, true
}

// receive is recvmsg without an address.
func receive(fd int, p, oob []byte) (n, oobn, flags int, err error) {
	iov := unix.Iovec{Base: &p[0]}
	iov.SetLen(len(p))
	h := unix.Msghdr{Iov: &iov, Control: &oob[0]}
	h.SetIovlen(1)
	h.SetControllen(len(oob))
	r, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if errno != 0 {
		return 0, 0, 0, errno
	}
	return int(r), int(h.Controllen), int(h.Flags), nil
}

// rights are the descriptors in a control buffer.
func rights(oob []byte) []int {
	var fds []int
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_RIGHTS {
			for ; len(data) >= 4; data = data[4:] {
				fds = append(fds, int(*(*int32)(unsafe.Pointer(&data[0]))))
			}
		}
		oob = rest
	}
	return fds
}

// Stream takes the descriptor of a message over as a stream; fd may be -1. The
// error has kind sdk.Invalid and has been counted.
func (s *Socket) Stream(fd int, m *Message, onClose func()) (*Stream, error) {
	err := CheckStream(fd)
	if err == nil {
		var c *Stream
		if c, err = NewStream(fd, m, onClose); err == nil {
			return c, nil
		}
	} else if fd >= 0 {
		unix.Close(fd)
	}
	s.counters.Foreign.Add(1)
	return nil, &sdk.Error{Kind: sdk.Invalid, Op: "handoff", Err: err}
}

// CheckStream says what is wrong with a descriptor that should be a connected stream
// socket.
func CheckStream(fd int) error {
	if fd < 0 {
		return errors.New("a stream without a descriptor")
	}
	get := func(option int) int {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
		if err != nil {
			return -1
		}
		return v
	}
	switch domain := get(unix.SO_DOMAIN); {
	case domain != unix.AF_UNIX && domain != unix.AF_INET && domain != unix.AF_INET6:
		return errors.New("the descriptor is no socket of a kind that is accepted")
	case domain != unix.AF_UNIX && get(unix.SO_PROTOCOL) != unix.IPPROTO_TCP && get(unix.SO_PROTOCOL) != unix.IPPROTO_MPTCP:
		return errors.New("the descriptor is no TCP socket")
	case get(unix.SO_TYPE) != unix.SOCK_STREAM:
		return errors.New("the descriptor is no stream socket")
	case get(unix.SO_ACCEPTCONN) != 0:
		return errors.New("the descriptor is a listening socket")
	}
	if _, err := unix.Getpeername(fd); err != nil {
		return errors.New("the descriptor is not connected")
	}
	return nil
}

func (s *Socket) wrap(err error) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return os.NewSyscallError("hand-off", errno)
	}
	return err
}

// Close ends the connection; the other end sees its end of file.
func (s *Socket) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	_ = s.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	return s.file.Close()
}
