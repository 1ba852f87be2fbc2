package inner

import (
	"bytes"
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// joinLimit bounds a joined packet.
const joinLimit = 60 << 10

// A joiner makes one packet of TCP segments that follow each other. Segments that
// cannot be joined pass as they are; the order stays.
type joiner struct {
	deliver func(*stack.PacketBuffer)
	parts   [batchSize][]byte // whole packets
	n       int
	total   int    // bytes of all
	headers int    // of each, 0 where the first cannot be joined
	next    uint32 // sequence number
	closed  bool   // the last part ends the run
}

// add takes a packet; it is used until flush.
func (j *joiner) add(p []byte) {
	if len(p) < ipSize || p[0]>>4 != 6 {
		return
	}
	headers, payload := segmentOf(p)
	if headers > 0 && j.follows(p, headers) {
		j.parts[j.n] = p
		j.n++
	} else {
		j.flush()
		j.parts[0], j.n, j.total, j.headers = p, 1, headers, headers
		if headers > 0 {
			j.next = binary.BigEndian.Uint32(p[atSequence:])
		}
	}
	j.total += payload
	j.next += uint32(payload)
	j.closed = headers > 0 && p[atFlags]&flagFin != 0
}

// segmentOf gives the sizes of headers and payload of a segment that may be joined
// to others; headers is 0 for any other packet.
func segmentOf(p []byte) (headers, payload int) {
	if len(p) < ipSize+header.TCPMinimumSize || p[atNext] != uint8(header.TCPProtocolNumber) {
		return 0, 0
	}
	headers = ipSize + int(p[atOffset]>>4)*4
	payload = len(p) - headers
	length := int(binary.BigEndian.Uint16(p[atLength:]))
	const ack = 16
	if headers < ipSize+header.TCPMinimumSize || payload <= 0 || ipSize+length != len(p) || p[atFlags]&^(flagFin|flagPsh) != ack {
		return 0, 0
	}
	return headers, payload
}

// follows says whether a segment goes on where the last one ended, with headers
// that differ in nothing that matters.
func (j *joiner) follows(p []byte, headers int) bool {
	if j.n == 0 || j.n == batchSize || j.closed || headers != j.headers || j.total+len(p) > joinLimit {
		return false
	}
	first := j.parts[0]
	return binary.BigEndian.Uint32(p[atSequence:]) == j.next &&
		bytes.Equal(p[:atLength], first[:atLength]) && // version, class, flow label
		bytes.Equal(p[atNext:atSequence], first[atNext:atSequence]) && // addresses, ports
		bytes.Equal(p[atAck:atOffset+1], first[atAck:atOffset+1]) &&
		bytes.Equal(p[atFlags+1:atChecksum], first[atFlags+1:atChecksum]) && // window
		bytes.Equal(p[atChecksum+2:headers], first[atChecksum+2:headers]) // urgent pointer, options
}

// flush delivers what has been gathered.
func (j *joiner) flush() {
	if j.n == 0 {
		return
	}
	var payload buffer.Buffer
	if j.n == 1 {
		payload = buffer.MakeWithData(j.parts[0])
	} else {
		v := buffer.NewView(j.total)
		flags := byte(0)
		for i, p := range j.parts[:j.n] {
			flags |= p[atFlags]
			if i > 0 {
				p = p[j.headers:]
			}
			_, _ = v.Write(p) // there is room
		}
		b := v.AsSlice()
		binary.BigEndian.PutUint16(b[atLength:], uint16(j.total-ipSize))
		b[atFlags] = flags
		payload = buffer.MakeWithView(v)
	}
	clear(j.parts[:j.n])
	j.n = 0
	j.deliver(stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: payload}))
}
