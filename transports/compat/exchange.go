package compat

import (
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/duplex"
)

// maxSeen bounds what is read before the first answer: the cap before
// authentication.
const maxSeen = 64 << 10

// errTooLong is a client that sends more than maxSeen before it is answered.
var errTooLong = errors.New("compat: too much before the first answer")

// exchange is the server's end of an HTTP mode. Nothing goes out before the
// first write.
type exchange struct {
	*duplex.Conn
	server *server
	mode   Mode
	w      http.ResponseWriter
	r      *http.Request

	mu      sync.Mutex
	begun   bool // the head is out
	refused bool // it never will be
	reading bool
	seen    []byte // what was read before the head, for the cover
	timer   *time.Timer
}

// framed is an exchange whose wire repeats each frame's header.
type framed struct{ *exchange }

// newExchange returns the exchange, and what the session sees of it: only the
// framed modes have WriteFrame.
func newExchange(s *server, mode Mode, w http.ResponseWriter, r *http.Request) (*exchange, net.Conn) {
	if r.ProtoMajor == 1 {
		// Where it is missing, bodies are read before the answer, which works
		// for clients that end their request first.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	c := &exchange{Conn: duplex.New(Name, w, r), server: s, mode: mode, w: w, r: r}
	if mode == Binary {
		return c, c
	}
	return c, framed{c}
}

// Path says who came and how.
func (c *exchange) Path() transport.Facts { return facts(c.r) }

// Read reads the request body. Until the head is out the bytes are kept, at
// most 64 KiB of them.
func (c *exchange) Read(p []byte) (int, error) {
	c.mu.Lock()
	switch {
	case c.refused:
		c.mu.Unlock()
		return 0, net.ErrClosed
	case !c.begun && len(c.seen) >= maxSeen:
		c.mu.Unlock()
		return 0, errTooLong
	case !c.begun:
		p = p[:min(len(p), maxSeen-len(c.seen))]
	}
	c.reading = true
	c.mu.Unlock()
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	if !c.begun {
		c.seen = append(c.seen, p[:n]...)
	}
	return n, err
}

// begin sends the head before the first write.
func (c *exchange) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused {
		return net.ErrClosed
	}
	if c.begun {
		return nil
	}
	c.begun, c.seen = true, nil
	h := c.w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Commucat-Connect-Mode", string(c.mode))
	switch c.mode {
	case Events:
		h.Set("Content-Type", "text/event-stream")
		if c.r.ProtoMajor == 1 {
			h.Set("Connection", "keep-alive")
		}
	case LongPoll:
		h.Set("Content-Type", "application/x-ndjson")
	default:
		h.Set("Content-Type", "application/octet-stream")
	}
	c.w.WriteHeader(http.StatusOK)
	if c.mode == Events {
		_, err := c.Conn.Write([]byte(":ready\n\n"))
		return err
	}
	return nil
}

// Write sends p: units of the binary mode need no frame around them.
func (c *exchange) Write(p []byte) (int, error) {
	if err := c.begin(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// Refuse leaves the request to the cover, whose answer goes out when accept
// returns. After the first write it only closes.
func (c *exchange) Refuse() { _ = c.Close() }

// Close ends the exchange. Before the first write it leaves the request to the
// cover, with the body as the client sent it.
func (c *exchange) Close() error {
	c.mu.Lock()
	if !c.begun {
		c.refused = true
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	wake := c.begun || c.reading
	c.mu.Unlock()
	if !wake {
		return nil
	}
	return c.Conn.Close()
}

// end finishes the exchange; false if the cover has to answer.
func (c *exchange) end() bool {
	_ = c.Close()
	c.mu.Lock()
	refused := c.refused
	c.mu.Unlock()
	if !refused {
		c.Finish()
		return true
	}
	c.Release()
	return false
}

// Write is not possible where the wire wants each frame's header.
func (c framed) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }

// WriteFrame sends one unit, CCP-1 section 5.3, in one write.
func (c framed) WriteFrame(label string, channel, sequence uint32, unit []byte) error {
	if err := c.begin(); err != nil {
		return err
	}
	b := make([]byte, 0, base64.StdEncoding.EncodedLen(len(unit))+96)
	if c.mode == Events {
		b = append(b, "event: frame\nid: "...)
		b = strconv.AppendUint(b, uint64(sequence), 10)
		b = append(b, "\ndata: "...)
		b = append(base64.StdEncoding.AppendEncode(b, unit), "\n\n"...)
	} else {
		b = append(b, `{"channel":`...)
		b = strconv.AppendUint(b, uint64(channel), 10)
		b = append(b, `,"data":"`...)
		b = base64.StdEncoding.AppendEncode(b, unit)
		b = append(b, `","sequence":`...)
		b = strconv.AppendUint(b, uint64(sequence), 10)
		b = append(append(append(b, `,"type":"`...), label...), "\"}\n"...)
	}
	_, err := c.Conn.Write(b)
	if err == nil {
		c.rest(label)
	}
	return err
}

// rest puts the keep-alive off. It begins with the frame that ends the
// handshake.
func (c framed) rest(label string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.timer != nil:
		c.timer.Reset(c.server.every)
	case label != "auth":
		c.timer = time.AfterFunc(c.server.every, c.keepAlive)
	}
}

func (c framed) keepAlive() {
	line := "{\"keepalive\":true}\n"
	if c.mode == Events {
		line = ":keepalive\n\n"
	}
	if _, err := c.Conn.Write([]byte(line)); err == nil {
		c.rest("")
	}
}
