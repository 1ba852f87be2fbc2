package masque

import (
	"bufio"
	"errors"
	"io"

	"github.com/quic-go/quic-go/quicvarint"
)

// An HTTP datagram of CONNECT-UDP (RFC 9298 section 5) is a context id, a varint,
// and what belongs to it. Context 0 is a UDP payload; others would have to be agreed
// on and are dropped.
const contextUDP = 0

// maxPayload is the largest UDP payload.
const maxPayload = 65527

// appendDatagram writes a UDP payload as an HTTP datagram.
func appendDatagram(b, payload []byte) []byte {
	return append(quicvarint.Append(b, contextUDP), payload...)
}

var errDatagram = errors.New("malformed HTTP datagram")

// parseDatagram gives the UDP payload of an HTTP datagram; ok is false for those of
// other contexts.
func parseDatagram(b []byte) (payload []byte, ok bool, err error) {
	id, n, err := quicvarint.Parse(b)
	if err != nil {
		return nil, false, errDatagram
	}
	if id != contextUDP {
		return nil, false, nil
	}
	if len(b)-n > maxPayload {
		return nil, false, errDatagram
	}
	return b[n:], true, nil
}

// Capsules (RFC 9297 section 3.2): type varint, length varint, value. They carry
// datagrams on the stream where QUIC's own are not at hand.
const capsuleDatagram = 0

// appendCapsule writes a UDP payload as a DATAGRAM capsule.
func appendCapsule(b, payload []byte) []byte {
	b = quicvarint.Append(b, capsuleDatagram)
	b = quicvarint.Append(b, uint64(quicvarint.Len(contextUDP)+len(payload)))
	return appendDatagram(b, payload)
}

// capsules reads the capsules of a stream.
type capsules struct {
	r     *bufio.Reader
	value []byte
}

func newCapsules(r io.Reader) *capsules { return &capsules{r: bufio.NewReaderSize(r, 16<<10)} }

// next gives the next UDP payload, good until it is called again; capsules of other types and datagrams of other
// contexts are skipped without being held. The end of the stream between two
// capsules is io.EOF, within one io.ErrUnexpectedEOF.
func (c *capsules) next() ([]byte, error) {
	for {
		if _, err := c.r.Peek(1); err != nil {
			return nil, err
		}
		kind, err := quicvarint.Read(c.r)
		if err != nil {
			return nil, truncated(err)
		}
		length, err := quicvarint.Read(c.r)
		if err != nil {
			return nil, truncated(err)
		}
		if kind != capsuleDatagram {
			if _, err := io.CopyN(io.Discard, c.r, int64(length)); err != nil { // a varint has 62 bits
				return nil, truncated(err)
			}
			continue
		}
		if length > maxPayload+8 {
			return nil, errDatagram
		}
		if uint64(cap(c.value)) < length {
			c.value = make([]byte, max(length, 2<<10))
		}
		value := c.value[:length]
		if _, err := io.ReadFull(c.r, value); err != nil {
			return nil, truncated(err)
		}
		payload, ok, err := parseDatagram(value)
		if err != nil || ok {
			return payload, err
		}
	}
}

func truncated(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
