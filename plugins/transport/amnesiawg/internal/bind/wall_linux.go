package bind

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

const (
	// udpHeader stands before the datagram in what a socket filter sees.
	udpHeader = 8
	// partAfter is after how many reads datagrams are no longer joined at the latest,
	// when there is a wall. A full buffer is read in fewer.
	partAfter = 1024
)

// linuxWall is a socket filter of the classic kind, which needs no capability.
type linuxWall struct {
	b       *batch
	program []unix.SockFilter
}

func (b *batch) newWall(p *obfs.Params, stray int) wall {
	if p.Protected() {
		return nil // the kernel cannot look below a key stream
	}
	return &linuxWall{b, filter(p, stray)}
}

func (w *linuxWall) raise() bool {
	prog := unix.SockFprog{Len: uint16(len(w.program)), Filter: &w.program[0]}
	var err error
	cerr := w.b.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
	})
	if cerr != nil || err != nil {
		w.lower()
		return false
	}
	w.b.parting.Store(partAfter)
	return true
}

func (w *linuxWall) lower() { w.b.unwall() }

// unwall takes the socket's wall away, whoever raised it.
func (b *batch) unwall() {
	b.parting.Store(0)
	_ = b.raw.Control(func(fd uintptr) { unwall(int(fd)) })
}

func unwall(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) // ENOENT where there is none
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
}

// part is called after each read. Of datagrams that are joined the filter sees the first
// alone, so they must not be; but those that wait already would come without their size.
func (b *batch) part(fd int, empty bool) {
	if b.parting.Load() > 0 && (b.parting.Add(-1) <= 0 || empty) {
		b.parting.Store(0)
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 0) // ENOPROTOOPT where nothing is joined
	}
}

func (w *linuxWall) dropped() uint32 {
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	_ = w.b.raw.Control(func(fd uintptr) {
		// What is not told is 0.
		_, _, _ = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&size)), 0)
	})
	return info[unix.SK_MEMINFO_DROPS]
}

// filter is a program that passes what Params.Look takes for a message, and datagrams
// of stray bytes.
func filter(p *obfs.Params, stray int) []unix.SockFilter {
	const (
		length   = unix.BPF_LD | unix.BPF_W | unix.BPF_LEN
		octet    = unix.BPF_LD | unix.BPF_B | unix.BPF_ABS
		shift    = unix.BPF_ALU | unix.BPF_LSH | unix.BPF_K
		or       = unix.BPF_ALU | unix.BPF_OR | unix.BPF_X
		save     = unix.BPF_MISC | unix.BPF_TAX
		ifEqual  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ifLeast  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		ifMore   = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
		give     = unix.BPF_RET | unix.BPF_K
		pass     = 1<<32 - 1
		ruleSize = 18
	)
	var out []unix.SockFilter
	rule := func(size int, longer bool, at int, r obfs.Range) {
		compare := uint16(ifEqual)
		if longer {
			compare = ifLeast
		}
		o := uint32(udpHeader + at)
		out = append(out,
			unix.SockFilter{Code: length},
			unix.SockFilter{Code: compare, Jf: ruleSize - 2, K: uint32(udpHeader + size)},
			unix.SockFilter{Code: octet, K: o + 3}) // the word is little-endian
		for _, place := range []uint32{2, 1, 0} {
			out = append(out,
				unix.SockFilter{Code: shift, K: 8}, unix.SockFilter{Code: save},
				unix.SockFilter{Code: octet, K: o + place}, unix.SockFilter{Code: or})
		}
		out = append(out,
			unix.SockFilter{Code: ifLeast, Jf: 2, K: r.Low},
			unix.SockFilter{Code: ifMore, Jt: 1, K: r.High},
			unix.SockFilter{Code: give, K: pass})
	}
	for k, size := range []int{obfs.InitiationSize, obfs.ResponseSize, obfs.CookieSize} {
		rule(p.Prefix[k]+size, p.Trailers, p.Prefix[k], p.Type[k])
	}
	data := p.Type[obfs.Transport]
	rule(p.Prefix[obfs.Transport]+obfs.TransportSize, true, p.Prefix[obfs.Transport], data)
	rule(obfs.TransportSize, false, 0, data) // keepalives of early peers of generation 2
	return append(out,
		unix.SockFilter{Code: length},
		unix.SockFilter{Code: ifEqual, Jf: 1, K: uint32(udpHeader + stray)},
		unix.SockFilter{Code: give, K: pass},
		unix.SockFilter{Code: give})
}
