package masque

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// messages carries a stream in WebSocket messages (RFC 6455 section 5) over a CONNECT
// stream (RFC 8441, RFC 9220): binary messages, their bytes in order, cut anywhere.
// Half-close is a close frame; what the peer still sends after one is read.
type messages struct {
	net.Conn
	client bool // masks what it sends

	reading sync.Mutex
	r       *bufio.Reader
	left    uint64 // of the present frame
	mask    [4]byte
	at      int // position in the mask
	masked  bool
	ended   bool

	writing sync.Mutex
	buf     []byte
	closed  bool
}

// Frame types.
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// farewell bounds the wait for room for a close frame.
const farewell = 200 * time.Millisecond

// maxFrame bounds a frame that is sent.
const maxFrame = 64 << 10

var errMessages = errors.New("malformed WebSocket frame")

func newMessages(c net.Conn, client bool) *messages {
	return &messages{Conn: c, client: client, r: bufio.NewReaderSize(c, 4<<10)}
}

// NetConn is the stream below.
func (m *messages) NetConn() net.Conn { return m.Conn }

// Path implements transport.PathFacts.
func (m *messages) Path() transport.Facts { return transport.FactsOf(m.Conn) }

// Read implements net.Conn. A close frame is the end of the stream.
func (m *messages) Read(p []byte) (int, error) {
	m.reading.Lock()
	defer m.reading.Unlock()
	for m.left == 0 {
		if m.ended {
			return 0, io.EOF
		}
		if err := m.next(); err != nil {
			return 0, err
		}
	}
	n, err := m.r.Read(p[:min(uint64(len(p)), m.left)])
	m.unmask(p[:n])
	m.left -= uint64(n)
	return n, truncated(err)
}

func (m *messages) unmask(p []byte) {
	if !m.masked {
		return
	}
	for i := range p {
		p[i] ^= m.mask[(m.at+i)&3]
	}
	m.at += len(p)
}

// next reads a frame's head, and answers control frames.
func (m *messages) next() error {
	// Peek keeps a head that a deadline cuts short, so that reading can go on.
	head, err := m.r.Peek(2)
	if err != nil {
		if len(head) > 0 {
			err = truncated(err)
		}
		return err
	}
	op, long := head[0]&15, head[1]&127
	if head[0]&0x70 != 0 || (head[1]&128 != 0) == m.client {
		return errMessages
	}
	size := 2
	switch long {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if !m.client {
		size += 4
	}
	if head, err = m.r.Peek(size); err != nil {
		return truncated(err)
	}
	n := uint64(long)
	switch long {
	case 126:
		n = uint64(binary.BigEndian.Uint16(head[2:]))
	case 127:
		n = binary.BigEndian.Uint64(head[2:])
	}
	m.masked, m.at = !m.client, 0
	if m.masked {
		copy(m.mask[:], head[size-4:])
	}
	fin := head[0]&128 != 0
	switch op {
	case opBinary, opContinuation:
		if n >= 1<<63 {
			return errMessages
		}
		_, _ = m.r.Discard(size)
		m.left = n
		return nil
	case opClose, opPing, opPong:
		if n > 125 || !fin {
			return errMessages
		}
		return m.control(op, size, int(n))
	}
	return errMessages // text as well: bytes are not text
}

func (m *messages) control(op byte, head, n int) error {
	whole, err := m.r.Peek(head + n)
	if err != nil {
		return truncated(err)
	}
	payload := append([]byte(nil), whole[head:]...)
	m.unmask(payload)
	_, _ = m.r.Discard(head + n)
	switch op {
	case opClose:
		m.ended = true
	case opPing:
		m.writing.Lock()
		defer m.writing.Unlock()
		if m.closed {
			return nil
		}
		return m.send(opPong, payload)
	}
	return nil
}

// Write implements net.Conn.
func (m *messages) Write(p []byte) (n int, err error) {
	m.writing.Lock()
	defer m.writing.Unlock()
	if m.closed {
		return 0, net.ErrClosed
	}
	for len(p) > 0 {
		part := p[:min(len(p), maxFrame)]
		if err := m.send(opBinary, part); err != nil {
			return n, err
		}
		n += len(part)
		p = p[len(part):]
	}
	return n, nil
}

// send writes one frame; writing is held.
func (m *messages) send(op byte, payload []byte) error {
	b := append(m.buf[:0], 128|op, 0)
	switch n := len(payload); {
	case n < 126:
		b[1] = byte(n)
	case n < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if m.client {
		b[1] |= 128
		var mask [4]byte
		_, _ = rand.Read(mask[:])
		b = append(b, mask[:]...)
		start := len(b)
		b = append(b, payload...)
		for i := range payload {
			b[start+i] ^= mask[i&3]
		}
	} else {
		b = append(b, payload...)
	}
	_, err := m.Conn.Write(b)
	if cap(b) > 4<<10 { // an idle stream holds no large buffer
		b = nil
	}
	m.buf = b
	return err
}

// CloseWrite implements transport.CloseWriter.
func (m *messages) CloseWrite() error {
	m.writing.Lock()
	defer m.writing.Unlock()
	return m.bye()
}

// bye sends a close frame with status 1000 (RFC 6455 section 7.4.1) once.
func (m *messages) bye() error {
	if m.closed {
		return nil
	}
	m.closed = true
	return m.send(opClose, []byte{3, 232})
}

// Close implements net.Conn.
func (m *messages) Close() error {
	if m.writing.TryLock() {
		// A peer that does not read gets no farewell.
		_ = m.SetWriteDeadline(time.Now().Add(farewell))
		_ = m.bye()
		m.writing.Unlock()
	}
	return m.Conn.Close()
}
