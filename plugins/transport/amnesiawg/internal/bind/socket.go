package bind

import (
	"net"
	"net/netip"
	"sync"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

const (
	// socketBuffer is asked for each direction; without a capability the system's
	// own limit holds.
	socketBuffer = 7 << 20
	// maxSend is the most datagrams of one system call.
	maxSend = 128
	// largest is the size of a buffer that takes any datagram.
	largest = 1 << 16
)

// socket is a UDP socket with what the platform can do with it.
type socket struct {
	index  int
	conn   net.PacketConn
	params *obfs.Params
	local  netip.AddrPort
	// batch reads and writes many datagrams at once, nil where the system or the
	// conn cannot.
	batch *batch
	bufs  sync.Pool // *[largest]byte, for send
}

func newSocket(i int, o Socket) *socket {
	s := &socket{index: i, conn: o.Conn, params: o.Params}
	if a, ok := o.Conn.LocalAddr().(*net.UDPAddr); ok {
		s.local = a.AddrPort()
	}
	if udp, ok := o.Conn.(*net.UDPConn); ok {
		s.batch = newBatch(udp, o.Errors)
	}
	s.bufs.New = func() any { return new([largest]byte) }
	return s
}

func (s *socket) newInbox() inbox {
	if s.batch != nil {
		return s.batch.newInbox()
	}
	return &plainInbox{conn: s.conn}
}

// newWall gives the socket's wall, nil where there is none. stray is a length that
// passes it, whatever the datagram holds.
func (s *socket) newWall(stray int) wall {
	if s.batch == nil {
		return nil
	}
	return s.batch.newWall(s.params, stray)
}

// send sends messages to one peer, each after prefix random bytes. header makes a
// message ready for its prefix, in place; nil leaves it as it is.
func (s *socket) send(to *Endpoint, prefix int, bufs [][]byte, header func(prefix, msg []byte)) error {
	if s.batch == nil {
		return s.sendEach(to, prefix, bufs, header)
	}
	for len(bufs) > 0 {
		n := min(len(bufs), maxSend)
		if err := s.batch.send(to, prefix, bufs[:n], header); err != nil {
			return err
		}
		bufs = bufs[n:]
	}
	return nil
}

// sendEach sends without help of the system.
func (s *socket) sendEach(to *Endpoint, prefix int, bufs [][]byte, header func(prefix, msg []byte)) error {
	space := s.bufs.Get().(*[largest]byte)
	defer s.bufs.Put(space)
	addr := net.UDPAddrFromAddrPort(to.addr)
	for _, msg := range bufs {
		d := space[:prefix]
		obfs.Fill(d)
		obfs.Unlike(d)
		if header != nil {
			header(d, msg)
		}
		if _, err := s.conn.WriteTo(append(d, msg...), addr); err != nil {
			return err
		}
	}
	return nil
}

// plainInbox reads one datagram at a time.
type plainInbox struct {
	conn net.PacketConn
	buf  [largest]byte
	n    int
	from netip.AddrPort
	full bool
}

func (in *plainInbox) fill() error {
	n, from, err := in.conn.ReadFrom(in.buf[:])
	if err != nil {
		return err
	}
	in.n, in.full = n, true
	if a, ok := from.(*net.UDPAddr); ok {
		in.from = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	return nil
}

func (in *plainInbox) next() ([]byte, netip.AddrPort, netip.Addr, bool) {
	if !in.full {
		return nil, netip.AddrPort{}, netip.Addr{}, false
	}
	in.full = false
	return in.buf[:in.n], in.from, netip.Addr{}, true
}
