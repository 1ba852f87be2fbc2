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
			if err == nil && n < bufferSize && unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, force, bufferSize) == nil {
				n, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option)
			}
			return n
		}
		got = min(size(unix.SO_RCVBUF, unix.SO_RCVBUFFORCE), size(unix.SO_SNDBUF, unix.SO_SNDBUFFORCE))
	})
	return got
}
