package masque

import (
	"errors"
	"net"
	"syscall"
)

// bufferSize is what QUIC wants as buffers of a UDP socket, in bytes. Linux gives
// it only where net.core.rmem_max and wmem_max allow it.
const bufferSize = 7 << 20

// socket is a UDP socket that has its buffers already. quic-go looks at them
// through the first two calls of SyscallConn and writes to the process's logger
// where they are small; both calls fail here, which it takes as "cannot be known".
type socket struct {
	*net.UDPConn
	asked int // only before the socket is in use
}

func (s *socket) SyscallConn() (syscall.RawConn, error) {
	if s.asked++; s.asked <= 2 {
		return nil, errors.ErrUnsupported
	}
	return s.UDPConn.SyscallConn()
}

// SetReadBuffer and SetWriteBuffer do nothing: see enlarge.
func (s *socket) SetReadBuffer(int) error  { return nil }
func (s *socket) SetWriteBuffer(int) error { return nil }

// forQUIC prepares a packet socket. got is the smaller of its two buffers, 0 where
// that is not known.
func forQUIC(pc net.PacketConn) (ready net.PacketConn, got int) {
	udp, ok := pc.(*net.UDPConn)
	if !ok {
		return pc, 0
	}
	return &socket{UDPConn: udp}, enlarge(udp)
}
