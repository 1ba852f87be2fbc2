package masque

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/sdk/transport"
)

const (
	// mergeBytes and mergeCount bound what goes out with one call; the kernel takes 64
	// packets of 64 KiB together at most.
	mergeBytes = 60 << 10
	mergeCount = 48
	// mergeBatches bounds what waits; then writers wait.
	mergeBatches = 8
	// mergeGap is the time between two packets from which on nothing is waited for.
	mergeGap = 100 * time.Microsecond
)

// merger joins packets of one size to one address, as DATAGRAM frames make them, into
// one system call. A packet that comes alone goes out at once; while others are on
// their way to the kernel, more are gathered.
type merger struct {
	udp    *net.UDPConn
	single atomic.Bool // the kernel cannot cut

	mu      sync.Mutex
	wake    sync.Cond // a batch has been sent
	batches []*batch  // in order
	spares  sync.Pool // of *batch: an idle socket holds none for long
	busy    bool      // a goroutine sends
	last    time.Time
}

// batch are packets for one address: all of one size, the last may be smaller.
type batch struct {
	data  []byte
	oob   []byte
	to    netip.AddrPort
	size  int
	count int
}

func (m *merger) write(b, oob []byte, to *net.UDPAddr) error {
	if m.single.Load() || len(b) > maxSingle || len(b) == 0 {
		_, _, err := m.udp.WriteMsgUDP(b, oob, to)
		return err
	}
	// quic-go names a size to cut at for single packets too.
	var scratch [controls]byte
	size, oob := withoutSegment(scratch[:0], oob)
	if size != 0 && len(b) > size {
		_, _, err := m.udp.WriteMsgUDP(b, appendSegment(oob, size), to)
		return err
	}
	now := time.Now()
	m.mu.Lock()
	alone := !m.busy && now.Sub(m.last) > mergeGap
	m.last = now
	if alone {
		m.mu.Unlock()
		_, _, err := m.udp.WriteMsgUDP(b, oob, to)
		return err
	}
	defer m.mu.Unlock()
	addr := transport.AddrPort(to) // not mapped: an IPv4 socket takes no other form
	for {
		if m.add(b, oob, addr) {
			break
		}
		m.wake.Wait()
	}
	if !m.busy {
		m.busy = true
		go m.run()
	}
	return nil
}

// maxSingle is the largest packet that is merged.
const maxSingle = 2048

// add puts a packet into a batch; false says that there is no room. mu is held.
func (m *merger) add(b, oob []byte, to netip.AddrPort) bool {
	for i := len(m.batches) - 1; i >= 0; i-- {
		one := m.batches[i]
		if one.to != to {
			continue
		}
		full := len(one.data)%one.size != 0 || one.count >= mergeCount || len(one.data)+len(b) > mergeBytes
		if full || len(b) > one.size || !bytes.Equal(one.oob, oob) {
			break // a later packet of one connection does not overtake
		}
		one.data = append(one.data, b...)
		one.count++
		return true
	}
	if len(m.batches) >= mergeBatches {
		return false
	}
	one, _ := m.spares.Get().(*batch)
	if one == nil {
		one = &batch{data: make([]byte, 0, mergeBytes)}
	}
	one.data, one.oob = append(one.data[:0], b...), append(one.oob[:0], oob...)
	one.to, one.size, one.count = to, len(b), 1
	m.batches = append(m.batches, one)
	return true
}

// drain waits until everything has been sent, the end of a connection for example.
func (m *merger) drain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.busy {
		m.wake.Wait()
	}
}

// run sends until nothing is left.
func (m *merger) run() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.batches) > 0 {
		one := m.batches[0]
		m.batches = append(m.batches[:0], m.batches[1:]...)
		m.mu.Unlock()
		single := m.send(one)
		m.mu.Lock()
		if single {
			m.single.Store(true)
		}
		m.spares.Put(one)
		m.wake.Broadcast()
	}
	m.busy = false
	m.wake.Broadcast()
}

// send sends one batch. Its errors are lost packets. single says that the device
// cannot cut.
func (m *merger) send(one *batch) (single bool) {
	if one.count > 1 {
		oob := appendSegment(one.oob, one.size)
		_, _, err := m.udp.WriteMsgUDPAddrPort(one.data, oob, one.to)
		if err == nil || !errors.Is(err, unix.EIO) {
			return false
		}
		single = true
	}
	for rest := one.data; len(rest) > 0; {
		part := rest[:min(one.size, len(rest))]
		_, _, _ = m.udp.WriteMsgUDPAddrPort(part, one.oob, one.to)
		rest = rest[len(part):]
	}
	return single
}

// withoutSegment copies control messages but the one that appendSegment makes, whose
// size it gives, 0 if there is none.
func withoutSegment(dst, oob []byte) (size int, rest []byte) {
	for len(oob) > 0 {
		if len(oob) < unix.CmsgLen(0) { // the parser does not look
			return size, append(dst, oob...)
		}
		h, data, after, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0, append(dst, oob...)
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_SEGMENT && len(data) >= 2 {
			size = int(binary.NativeEndian.Uint16(data))
		} else {
			dst = append(dst, oob[:len(oob)-len(after)]...)
		}
		oob = after
	}
	return size, dst
}

// appendSegment appends the control message that tells the kernel where to cut.
func appendSegment(oob []byte, size int) []byte {
	start := len(oob)
	oob = append(oob, make([]byte, unix.CmsgSpace(2))...)
	h := oob[start:]
	// struct cmsghdr: length (size_t), level, type
	if unix.SizeofCmsghdr == 16 {
		binary.NativeEndian.PutUint64(h, uint64(unix.CmsgLen(2)))
	} else {
		binary.NativeEndian.PutUint32(h, uint32(unix.CmsgLen(2)))
	}
	binary.NativeEndian.PutUint32(h[unix.SizeofCmsghdr-8:], unix.IPPROTO_UDP)
	binary.NativeEndian.PutUint32(h[unix.SizeofCmsghdr-4:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(h[unix.CmsgLen(0):], uint16(size))
	return oob
}
