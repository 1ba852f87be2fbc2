package bind

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch reads and writes with recvmmsg and sendmmsg, and lets the kernel split and
// join datagrams of one size (UDP_SEGMENT, UDP_GRO; Linux 4.18 and 5.0).
type batch struct {
	raw  syscall.RawConn
	six  bool        // the socket takes IPv6 addresses, and IPv4 mapped into them
	gso  atomic.Bool // datagrams may be sent joined
	outs sync.Pool   // *outbox
	// parting counts the reads down to when datagrams are no longer joined; 0 is as it is.
	parting atomic.Int32
}

// mmsghdr is the kernel's struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

func newBatch(c *net.UDPConn, errors bool) *batch {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	b := &batch{raw: raw}
	err = raw.Control(func(fd uintptr) { b.setup(int(fd), errors) })
	if err != nil {
		return nil
	}
	b.outs.New = func() any { return newOutbox() }
	return b
}

// setup asks for what helps; a kernel without it works as well.
func (b *batch) setup(fd int, errors bool) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	b.six = err == nil && domain == unix.AF_INET6
	for _, o := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF, unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o, socketBuffer)
	}
	// The socket may be a duplicate: a filter outlives whoever attached it.
	unwall(fd)
	_, err = unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	b.gso.Store(err == nil)
	if b.six {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	} else {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	if errors {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
		if b.six {
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
		}
	}
}

const (
	// inboxSlots is how many messages one call reads; each may hold many
	// datagrams that the kernel has joined.
	inboxSlots = 32
	// controlSize is room for PKTINFO and the size of joined datagrams.
	controlSize = 96
)

// linuxInbox reads into its own buffers, and gives out datagram by datagram.
type linuxInbox struct {
	b       *batch
	msgs    [inboxSlots]mmsghdr
	iovs    [inboxSlots]unix.Iovec
	names   [inboxSlots]unix.RawSockaddrInet6
	control [inboxSlots][controlSize]byte
	bufs    [inboxSlots][largest]byte

	got, slot int    // messages read, the one that is given out
	rest      []byte // of the message in slot
	size      int    // of its datagrams
	from      netip.AddrPort
	local     netip.Addr
}

func (b *batch) newInbox() inbox {
	in := &linuxInbox{b: b}
	for i := range in.msgs {
		in.iovs[i].Base = &in.bufs[i][0]
		in.iovs[i].SetLen(largest)
		h := &in.msgs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&in.names[i]))
		h.Iov = &in.iovs[i]
		h.SetIovlen(1)
		h.Control = &in.control[i][0]
	}
	return in
}

func (in *linuxInbox) fill() error {
	for i := range in.msgs {
		h := &in.msgs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSize)
	}
	var errno syscall.Errno
	err := in.b.raw.Read(func(fd uintptr) bool {
		var n uintptr
		n, _, errno = unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&in.msgs[0])), inboxSlots, unix.MSG_DONTWAIT, 0, 0)
		in.b.part(int(fd), errno == unix.EAGAIN)
		if errno != 0 {
			return errno != unix.EAGAIN && errno != unix.EINTR
		}
		in.got = int(n)
		return true
	})
	if err != nil {
		return err
	}
	if errno != 0 {
		in.drainErrors()
		return errno
	}
	in.slot, in.rest = -1, nil
	return nil
}

// drainErrors throws away what the kernel keeps about errors.
func (in *linuxInbox) drainErrors() {
	_ = in.b.raw.Control(func(fd uintptr) {
		var space [512]byte
		for range 64 {
			if _, _, _, _, err := unix.Recvmsg(int(fd), space[:256], space[256:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); err != nil {
				return
			}
		}
	})
}

func (in *linuxInbox) next() ([]byte, netip.AddrPort, netip.Addr, bool) {
	for len(in.rest) == 0 {
		if in.slot++; in.slot >= in.got {
			in.slot, in.got = 0, 0
			return nil, netip.AddrPort{}, netip.Addr{}, false
		}
		m := &in.msgs[in.slot]
		in.rest = in.bufs[in.slot][:m.len]
		in.size = len(in.rest)
		in.from, in.local = address(&in.names[in.slot]), netip.Addr{}
		in.readControl(in.control[in.slot][:m.hdr.Controllen])
	}
	n := min(in.size, len(in.rest))
	d := in.rest[:n:n]
	in.rest = in.rest[n:]
	return d, in.from, in.local, true
}

func (in *linuxInbox) readControl(c []byte) {
	for len(c) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(c)
		if err != nil {
			return
		}
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			if n := int(binary.NativeEndian.Uint32(data)); n > 0 {
				in.size = n
			}
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 2:
			if n := int(binary.NativeEndian.Uint16(data)); n > 0 {
				in.size = n
			}
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			in.local = netip.AddrFrom4([4]byte(data[4:8])) // ipi_spec_dst
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			in.local = netip.AddrFrom16([16]byte(data[:16]))
		}
		c = rest
	}
}

// address reads a socket address of the kernel.
func address(sa *unix.RawSockaddrInet6) netip.AddrPort {
	switch sa.Family {
	case unix.AF_INET:
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), ntohs(four.Port))
	case unix.AF_INET6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 && a.IsLinkLocalUnicast() {
			a = a.WithZone(strconv.Itoa(int(sa.Scope_id)))
		}
		return netip.AddrPortFrom(a, ntohs(sa.Port))
	}
	return netip.AddrPort{}
}

// ntohs turns a port of a socket address, in network order, round.
func ntohs(p uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], p)
	return binary.BigEndian.Uint16(b[:])
}
