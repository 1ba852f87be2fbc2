package masque

import (
	"net"

	"golang.org/x/sys/unix"
)

// enlarge sets the buffers as large as the system allows and says how large the
// smaller one is. With CAP_NET_ADMIN the limit of the system does not count.
func enlarge(c *net.UDPConn) (got int) {
	_, _ = c.SetReadBuffer(bufferSize), c.SetWriteBuffer(bufferSize)
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		size := func(option, force int) int {
			n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option)
			if err == nil && n/2 < bufferSize && unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, force, bufferSize) == nil {
				n, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option)
			}
			return n / 2 // the kernel says twice what was asked for (socket(7))
		}
		got = min(size(unix.SO_RCVBUF, unix.SO_RCVBUFFORCE), size(unix.SO_SNDBUF, unix.SO_SNDBUFFORCE))
	})
	return got
}

// batching is what a socket has where the kernel joins and cuts packets: UDP_GRO for
// what comes, UDP_SEGMENT for what goes.
type batching struct {
	in  receiver
	out merger
}

// batch asks the kernel for both; what it lacks is done one packet at a time.
func (s *socket) batch() {
	s.out.udp = s.UDPConn
	s.out.wake.L = &s.out.mu
	s.in.open(s.UDPConn)
	raw, err := s.UDPConn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		if _, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT); err != nil {
			s.out.single.Store(true)
		}
	})
}

// WriteMsgUDP sends a packet, or several in one buffer where oob says so.
func (s *socket) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	if err := s.kept(s.out.write(b, oob, to)); err != nil {
		return 0, 0, err
	}
	return len(b), len(oob), nil
}

// Close closes the socket when what was written has been sent.
func (s *socket) Close() error {
	s.out.drain()
	return s.UDPConn.Close()
}
