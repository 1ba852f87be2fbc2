package masque

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
)

// bufferSize is what QUIC wants as buffers of a UDP socket, in bytes. Linux gives
// it only where net.core.rmem_max and wmem_max allow it.
const bufferSize = 7 << 20

// socket is a UDP socket for quic-go: it has its buffers already, takes and gives
// several packets with one system call where the kernel can (Linux), and takes an
// unreachable network for what it is to a connection that may move: lost packets.
type socket struct {
	*net.UDPConn
	asked int // only before the socket is in use
	sent  atomic.Bool
	batching
}

// SyscallConn is asked twice by quic-go for the size of the buffers, and if that can
// be known and is small, quic-go writes to the process's logger. So it cannot be
// known.
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
	got = enlarge(udp)
	s := &socket{UDPConn: udp}
	s.batch()
	return s, got
}

// kept turns errors that pass with the network into success: the packet is lost. quic-go
// would end the connection, which is to survive a change of networks. A socket that
// has never sent anything says what is wrong.
func (s *socket) kept(err error) error {
	if err == nil {
		if !s.sent.Load() {
			s.sent.Store(true)
		}
		return nil
	}
	if s.sent.Load() && passing(err) {
		return nil
	}
	return err
}

// passing says that an error is about the network as it is now.
func passing(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL, syscall.ECONNREFUSED, syscall.ENOBUFS, syscall.EPERM,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
