package masque

import (
	"encoding/binary"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	// joined is the largest datagram that the kernel makes of several.
	joined = 64 << 10
	// receives is how many of those one call takes.
	receives = 4
	// controls bounds the control messages of one.
	controls = 128
)

// receiver reads packets that the kernel has joined and hands them out one by one.
// quic-go reads from one goroutine.
type receiver struct {
	from *ipv4.PacketConn
	msgs []ipv4.Message
	n    int // of msgs that were received last
	next int // the first that is not used up
	rest []byte
	size int // of a packet in rest
}

func (r *receiver) open(c *net.UDPConn) { r.from = ipv4.NewPacketConn(c) }

// ReadBatch is called by quic-go instead of recvmmsg.
func (s *socket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	r := &s.in
	if r.msgs == nil {
		r.msgs = make([]ipv4.Message, receives)
		for i := range r.msgs {
			r.msgs[i].Buffers = [][]byte{make([]byte, joined)}
		}
	}
	if r.next == r.n {
		for i := range r.msgs {
			if r.msgs[i].OOB == nil {
				r.msgs[i].OOB = make([]byte, controls)
			}
		}
		n, err := r.from.ReadBatch(r.msgs, flags)
		if err != nil || n == 0 {
			r.n, r.next = 0, 0
			return 0, err
		}
		r.n, r.next = n, 0
		r.begin()
	}
	i := 0
	for i < len(ms) && r.next < r.n {
		m := &r.msgs[r.next]
		part := r.rest[:min(r.size, len(r.rest))]
		ms[i].N = copy(ms[i].Buffers[0], part)
		ms[i].NN = copy(ms[i].OOB, m.OOB[:m.NN])
		ms[i].Addr, ms[i].Flags = m.Addr, m.Flags
		i++
		if r.rest = r.rest[len(part):]; len(r.rest) == 0 {
			if r.next++; r.next < r.n {
				r.begin()
			}
		}
	}
	return i, nil
}

// begin looks at the next received datagram.
func (r *receiver) begin() {
	m := &r.msgs[r.next]
	r.rest = m.Buffers[0][:m.N]
	r.size = control(m.OOB[:m.NN], unix.UDP_GRO)
	if r.size <= 0 {
		r.size = max(m.N, 1)
	}
}

// control finds the number that a control message of UDP says, 0 if there is none.
func control(oob []byte, kind int32) int {
	for len(oob) >= unix.CmsgLen(0) { // the parser does not look
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == kind {
			switch {
			case len(data) >= 4:
				return int(int32(binary.NativeEndian.Uint32(data)))
			case len(data) >= 2:
				return int(binary.NativeEndian.Uint16(data))
			}
		}
		oob = rest
	}
	return 0
}

// segment is the size of the packets in a buffer that is to be sent, 0 for one.
func segment(oob []byte) int { return control(oob, unix.UDP_SEGMENT) }
