package reality

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// awaitGone waits until a TCP connection whose peer has sent its end is closed by a
// reset or by both ends: then gone is true. It gives up when the time comes or when the
// read deadline is moved into the past. able is false at once for other connections.
func awaitGone(c net.Conn, until time.Time) (gone, able bool) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return false, false
	}
	raw, err := tcp.SyscallConn()
	if err != nil || tcp.SetReadDeadline(until) != nil {
		return true, true
	}
	err = raw.Read(closedState)
	return err == nil || !isTimeout(err), true
}

// isClosed says that a TCP connection has ended by a reset or at both ends.
func isClosed(c net.Conn) (closed bool) {
	s, ok := c.(syscall.Conn)
	if _, tcp := c.RemoteAddr().(*net.TCPAddr); !ok || !tcp {
		return false
	}
	raw, err := s.SyscallConn()
	return err != nil || raw.Control(func(fd uintptr) { closed = closedState(fd) }) != nil || closed
}

func closedState(fd uintptr) bool {
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	return err != nil || info.State == unix.BPF_TCP_CLOSE
}
