package ws

import (
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// chunk is the payload of the longest frame that Write makes: head and
	// payload fit one TLS record.
	chunk = 16<<10 - maxHeader
	// Linger is how long an end that has closed waits for the other's close.
	Linger = 2 * time.Second
	// MaxText is the longest text message, in bytes, where text is allowed.
	MaxText = 128 << 10

	closeProtocol    = 1002
	closeUnsupported = 1003
	closeTooBig      = 1009
)

// Role says which side of the connection we are.
type Role uint8

// Clients mask what they send, servers do not.
const (
	Server Role = iota
	Client
)

// Buffers lends the buffers of writes in progress.
type Buffers struct{ pool sync.Pool }

func (b *Buffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, 0, chunk+maxHeader)
	return &p
}

// Conn is a net.Conn over a WebSocket. The peer's close frame reads as end of
// stream; CloseWrite sends ours.
type Conn struct {
	net  net.Conn
	role Role
	// Text, if set, turns a text message into bytes; an error drops it. Where
	// it is nil, text ends the connection. It is set before the first Read.
	Text func(message []byte) ([]byte, error)

	bufs *Buffers

	reading  sync.Mutex
	early    []byte // read together with the handshake
	head     [maxHeader]byte
	have     int    // bytes of head
	left     uint64 // payload bytes to come of the frame
	frame    header // of the frame under way
	pos      int    // in the mask
	fragment byte   // opcode of a message whose last frame is still to come
	side     []byte // payload of a control frame or a text message under way
	decoded  []byte // of a text message, not yet read
	readErr  error

	writing  sync.Mutex
	writeErr error
	shut     bool // our close frame is out

	mu     sync.Mutex
	pong   []byte // an answer that a busy writer will send
	closed atomic.Bool
	ending sync.Once
}

// New returns the stream. early holds bytes that were read from conn with the
// handshake; it is kept until read.
func New(conn net.Conn, role Role, early []byte, bufs *Buffers) *Conn {
	return &Conn{net: conn, role: role, early: early, bufs: bufs}
}

// NetConn is the connection below.
func (c *Conn) NetConn() net.Conn { return c.net }

// Read reads the payload of binary messages.
func (c *Conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.read(p)
	if err != nil && c.closed.Load() {
		err = net.ErrClosed
	}
	return n, err
}

func (c *Conn) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if len(c.decoded) > 0 {
			n := copy(p, c.decoded)
			if c.decoded = c.decoded[n:]; len(c.decoded) == 0 {
				c.decoded = nil
			}
			return n, nil
		}
		if c.readErr != nil {
			return 0, c.readErr
		}
		n, err := c.step(p)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return n, err // the state is whole: a later Read goes on
		case err != nil:
			c.readErr = err
			return n, err
		case n > 0:
			return n, nil
		}
	}
}

// step does one read of the connection.
func (c *Conn) step(p []byte) (int, error) {
	switch {
	case c.left == 0:
		return 0, c.readHead()
	case c.frame.opcode == opBinary:
		p = p[:min(uint64(len(p)), c.left)]
		n, err := c.raw(p)
		c.took(p[:n])
		return n, c.inside(err)
	default:
		at := len(c.side)
		c.side = append(c.side, make([]byte, min(c.left, 4096))...)
		n, err := c.raw(c.side[at:])
		c.side = c.side[:at+n]
		c.took(c.side[at:])
		if c.left == 0 {
			return 0, c.sideDone() // an error comes again
		}
		return 0, c.inside(err)
	}
}

// took unmasks payload that has arrived.
func (c *Conn) took(b []byte) {
	c.left -= uint64(len(b))
	if c.frame.masked {
		c.pos = xor(c.frame.mask, c.pos, b)
	}
}

// inside turns an end of stream within a frame into an unexpected one.
func (c *Conn) inside(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *Conn) raw(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, nil
	}
	return c.net.Read(p)
}

// readHead collects a frame's head and opens the frame.
func (c *Conn) readHead() error {
	need := 2
	if c.have >= 2 {
		need = headerSize(c.head[:])
	}
	n, err := c.raw(c.head[c.have:need])
	c.have += n
	if err != nil {
		if err == io.EOF {
			// TCP ended without a close frame.
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if c.have < 2 || c.have < headerSize(c.head[:]) {
		return nil
	}
	h, err := parseHeader(c.head[:c.have])
	c.have = 0
	if err != nil {
		return c.abuse(closeProtocol)
	}
	return c.open(h)
}

func (c *Conn) open(h header) error {
	if h.masked != (c.role == Server) {
		return c.abuse(closeProtocol)
	}
	control := h.opcode >= opClose
	if !control {
		if (h.opcode == opContinuation) != (c.fragment != 0) {
			return c.abuse(closeProtocol)
		}
		if h.opcode == opContinuation {
			h.opcode = c.fragment
		}
		if h.opcode == opText && c.Text == nil {
			return c.abuse(closeUnsupported)
		}
		if h.opcode == opText && uint64(len(c.side))+h.length > MaxText {
			return c.abuse(closeTooBig)
		}
		if c.fragment = h.opcode; h.fin {
			c.fragment = 0
		}
	} else if c.fragment == opText {
		// Text in pieces with control frames between them: nobody who speaks
		// to us does it, and it would need a second buffer.
		return c.abuse(closeUnsupported)
	}
	c.frame, c.left, c.pos = h, h.length, 0
	if h.length == 0 && h.opcode != opBinary {
		return c.sideDone()
	}
	return nil
}

// sideDone handles a whole control frame, or the end of a frame of text.
func (c *Conn) sideDone() error {
	if c.frame.opcode == opText && !c.frame.fin {
		return nil
	}
	payload := c.side
	c.side = nil
	switch c.frame.opcode {
	case opText:
		if b, err := c.Text(payload); err == nil {
			c.decoded = b
		}
	case opPing:
		c.answer(payload)
	case opClose:
		if len(payload) == 1 {
			return c.abuse(closeProtocol)
		}
		return io.EOF
	}
	return nil
}

// answer sends a pong, or leaves it to the writer that is at work.
func (c *Conn) answer(payload []byte) {
	c.mu.Lock()
	c.pong = append(make([]byte, 0, len(payload)+1), payload...)
	c.mu.Unlock()
	if c.writing.TryLock() {
		c.flushPong()
		c.writing.Unlock()
	}
}

// flushPong runs with writing held.
func (c *Conn) flushPong() {
	c.mu.Lock()
	pong := c.pong
	c.pong = nil
	c.mu.Unlock()
	if pong != nil && c.writeErr == nil && !c.shut {
		c.writeErr = c.send(opPong, true, pong)
	}
}

// abuse ends the connection with a close code.
func (c *Conn) abuse(code uint16) error {
	if c.writing.TryLock() {
		if c.writeErr == nil && !c.shut {
			c.shut = true
			_ = c.net.SetWriteDeadline(time.Now().Add(Linger))
			_ = c.send(opClose, true, []byte{byte(code >> 8), byte(code)})
		}
		c.writing.Unlock()
	}
	return ErrProtocol
}

// Write sends p as binary messages of at most 16 KiB, each in one write.
func (c *Conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	done := 0
	for {
		if err := c.writable(); err != nil {
			return done, err
		}
		n := min(len(p)-done, chunk)
		if n == 0 {
			break
		}
		if err := c.send(opBinary, true, p[done:done+n]); err != nil {
			c.writeErr = err
			return done, c.plain(err)
		}
		done += n
	}
	c.flushPong()
	return done, nil
}

// WriteMessage sends p as one binary message of one frame.
func (c *Conn) WriteMessage(p []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.writable(); err != nil {
		return err
	}
	if err := c.send(opBinary, true, p); err != nil {
		c.writeErr = err
		return c.plain(err)
	}
	c.flushPong()
	return nil
}

func (c *Conn) writable() error {
	switch {
	case c.closed.Load():
		return net.ErrClosed
	case c.writeErr != nil:
		return c.writeErr
	case c.shut:
		return io.ErrClosedPipe
	}
	return nil
}

func (c *Conn) plain(err error) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return err
}

// send writes one frame; writing is held. A payload beyond the buffer follows
// in further writes.
func (c *Conn) send(opcode byte, fin bool, p []byte) error {
	h := header{fin: fin, opcode: opcode, length: uint64(len(p)), masked: c.role == Client}
	if h.masked {
		if _, err := rand.Read(h.mask[:]); err != nil {
			return err
		}
	}
	buf := c.bufs.get()
	defer c.bufs.pool.Put(buf)
	b := appendHeader((*buf)[:0], h)
	pos := 0
	for {
		at := len(b)
		n := copy(b[at:cap(b)], p)
		b, p = b[:at+n], p[n:]
		if h.masked {
			pos = xor(h.mask, pos, b[at:])
		}
		if _, err := c.net.Write(b); err != nil {
			return err
		}
		if len(p) == 0 {
			return nil
		}
		b = b[:0]
	}
}

// CloseWrite sends the close frame: the peer reads end of stream and may go on
// sending until it closes too.
func (c *Conn) CloseWrite() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.sayClose()
}

// sayClose runs with writing held.
func (c *Conn) sayClose() error {
	if c.shut || c.writeErr != nil {
		return c.writeErr
	}
	c.shut = true
	c.writeErr = c.send(opClose, true, nil)
	return c.writeErr
}

// Close sends the close frame and wakes every call. The connection itself is
// closed by [Conn.Finish].
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Swap(true) {
		return nil
	}
	past := time.Unix(1, 0)
	_ = c.net.SetReadDeadline(past)
	if c.writing.TryLock() {
		_ = c.net.SetWriteDeadline(time.Now().Add(Linger))
		_ = c.sayClose()
		c.writing.Unlock()
	} else {
		_ = c.net.SetWriteDeadline(past)
	}
	return nil
}

// Finish waits up to [Linger] for the peer's close frame, so that what was
// written before arrives, and closes the connection below. It is called after
// [Conn.Close]; only the first call does anything.
func (c *Conn) Finish() { c.ending.Do(c.finish) }

// FinishSoon is Finish on a goroutine of its own.
func (c *Conn) FinishSoon() { go c.Finish() }

func (c *Conn) finish() {
	defer c.net.Close()
	c.reading.Lock()
	defer c.reading.Unlock()
	_ = c.net.SetReadDeadline(time.Now().Add(Linger))
	buf := c.bufs.get()
	defer c.bufs.pool.Put(buf)
	for {
		if _, err := c.read((*buf)[:cap(*buf)]); err != nil {
			return
		}
	}
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds Read; a Read may follow one that timed out.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.deadline(t, c.net.SetReadDeadline) }

// SetWriteDeadline bounds Write. A Write that timed out ends the stream: TLS
// cannot go on after half a record.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.deadline(t, c.net.SetWriteDeadline) }

func (c *Conn) deadline(t time.Time, set func(time.Time) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return net.ErrClosed
	}
	return set(t)
}

// LocalAddr is the address of the connection below.
func (c *Conn) LocalAddr() net.Addr { return c.net.LocalAddr() }

// RemoteAddr is the address of the connection below.
func (c *Conn) RemoteAddr() net.Addr { return c.net.RemoteAddr() }
