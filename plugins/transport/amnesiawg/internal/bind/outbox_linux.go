package bind

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

const (
	// maxJoined is how many datagrams the kernel splits a message into at most,
	// and maxJoinedBytes how many bytes it may hold.
	maxJoined      = 64
	maxJoinedBytes = 65535 - 40 - 8
)

// outbox is what one call of send needs: a message holds one datagram or several
// of one size, a datagram is its prefix and its body, gathered by the kernel.
type outbox struct {
	msgs     [maxSend]mmsghdr
	iovs     [2 * maxSend]unix.Iovec
	control  [maxSend][controlSize]byte
	first    [maxSend + 1]int // datagram that a message begins with
	prefixes [maxSend * obfs.MaxTransportPrefix]byte
	name     [unix.SizeofSockaddrInet6]byte
	nameLen  uint32
}

func newOutbox() *outbox { return new(outbox) }

func (b *batch) send(to *Endpoint, prefix int, bufs [][]byte, header func(prefix, msg []byte)) error {
	o := b.outs.Get().(*outbox)
	defer b.outs.Put(o)
	if !o.address(to.addr, b.six) {
		return syscall.EAFNOSUPPORT
	}
	o.bodies(prefix, bufs, header)
	for from := 0; from < len(bufs); {
		join := b.gso.Load()
		n := o.group(from, prefix, bufs, to.local, b.six, join)
		sent, err := b.write(o.msgs[:n])
		from = o.first[sent]
		switch {
		case err == nil:
		case err == unix.EIO && join:
			// The device makes no checksums, which splitting needs.
			b.gso.Store(false)
		case err == unix.EINVAL && join:
			// The path takes smaller packets; without joining the kernel cuts.
			if n = o.group(from, prefix, bufs, to.local, b.six, false); n == 0 {
				return err
			}
			if sent, err = b.write(o.msgs[:n]); err != nil {
				return err
			}
			from = o.first[sent]
		case err == unix.EMSGSIZE || err == unix.ENOBUFS:
			from = o.first[sent+1] // as lost on the way
		default:
			return err
		}
	}
	o.release(len(bufs))
	return nil
}

// bodies makes prefixes and headers, once, whatever the grouping.
func (o *outbox) bodies(prefix int, bufs [][]byte, header func(prefix, msg []byte)) {
	space := o.prefixes[:prefix*len(bufs)]
	obfs.Fill(space)
	for i, msg := range bufs {
		p := space[i*prefix : (i+1)*prefix]
		obfs.Unlike(p)
		if header != nil {
			header(p, msg)
		}
		if prefix > 0 {
			o.iovs[2*i].Base = &p[0]
		}
		o.iovs[2*i].SetLen(prefix)
		o.iovs[2*i+1].Base = &msg[0]
		o.iovs[2*i+1].SetLen(len(msg))
	}
}

// group makes messages of the datagrams from one on and gives their number.
func (o *outbox) group(from, prefix int, bufs [][]byte, local netip.Addr, six, join bool) int {
	n := 0
	for i := from; i < len(bufs); n++ {
		size := prefix + len(bufs[i])
		total, end := size, i+1
		for join && end < len(bufs) && end-i < maxJoined {
			next := prefix + len(bufs[end])
			if next > size || total+next > maxJoinedBytes {
				break
			}
			total += next
			end++
			if next < size { // only the last one may be shorter
				break
			}
		}
		o.first[n] = i
		h := &o.msgs[n].hdr
		*h = unix.Msghdr{Name: &o.name[0], Namelen: o.nameLen}
		if prefix > 0 {
			h.Iov = &o.iovs[2*i]
			h.SetIovlen(2 * (end - i))
		} else {
			h.Iov = &o.iovs[2*i+1]
			h.SetIovlen(2*(end-i) - 1) // the empty prefixes between cost nothing
		}
		c := appendLocal(o.control[n][:0], local, six)
		if end-i > 1 {
			c = appendControl(c, unix.SOL_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, uint16(size)))
		}
		if len(c) > 0 {
			h.Control = &o.control[n][0]
			h.SetControllen(len(c))
		}
		i = end
	}
	o.first[n] = len(bufs)
	return n
}

// write sends messages and gives how many went before an error.
func (b *batch) write(msgs []mmsghdr) (sent int, err error) {
	for sent < len(msgs) {
		var errno syscall.Errno
		werr := b.raw.Write(func(fd uintptr) bool {
			var n uintptr
			n, _, errno = unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&msgs[sent])), uintptr(len(msgs)-sent), unix.MSG_DONTWAIT, 0, 0)
			if errno == 0 {
				sent += int(n)
			}
			return errno != unix.EAGAIN && errno != unix.EINTR
		})
		if werr != nil {
			return sent, werr
		}
		if errno != 0 {
			return sent, errno
		}
	}
	return sent, nil
}

// release lets go of the caller's buffers.
func (o *outbox) release(n int) {
	for i := range n {
		o.iovs[2*i+1] = unix.Iovec{}
	}
}

// address writes the destination and says whether the socket can reach it.
func (o *outbox) address(to netip.AddrPort, six bool) bool {
	a := to.Addr()
	switch {
	case six:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&o.name[0]))
		*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: ntohs(to.Port()), Addr: a.As16(), Scope_id: scope(a)}
		o.nameLen = unix.SizeofSockaddrInet6
	case a.Is4() || a.Is4In6():
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&o.name[0]))
		*sa = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: ntohs(to.Port()), Addr: a.Unmap().As4()}
		o.nameLen = unix.SizeofSockaddrInet4
	default:
		return false
	}
	return true
}

func scope(a netip.Addr) uint32 {
	if a.Zone() == "" {
		return 0
	}
	if n, err := strconv.ParseUint(a.Zone(), 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(a.Zone()); err == nil {
		return uint32(i.Index)
	}
	return 0
}

// appendLocal says which address a datagram leaves from.
func appendLocal(c []byte, local netip.Addr, six bool) []byte {
	if !local.IsValid() || local.IsUnspecified() {
		return c
	}
	if six {
		var info [unix.SizeofInet6Pktinfo]byte
		a := local.As16()
		copy(info[:], a[:])
		return appendControl(c, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, info[:])
	}
	var info [unix.SizeofInet4Pktinfo]byte
	a := local.Unmap().As4()
	copy(info[4:], a[:]) // ipi_spec_dst
	return appendControl(c, unix.IPPROTO_IP, unix.IP_PKTINFO, info[:])
}

// appendControl adds a control message; c has the room.
func appendControl(c []byte, level, kind int32, data []byte) []byte {
	at := len(c)
	c = c[:at+unix.CmsgSpace(len(data))]
	clear(c[at:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(len(data)))
	copy(c[at+unix.CmsgLen(0):], data)
	return c
}
