package reality

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// The module is given two stand-ins: standin for the client's socket, mirror for its
// connection to the cover. Between them nothing reaches the client but a flight that
// looks like the cover's, and nothing of the client's second flight reaches the module
// but complete application data records.

// maxMirrored is the largest record that the module can copy.
const maxMirrored = 8192

// maxHeld bounds what the module sends after the client's Finished, before it returns.
const maxHeld = 64 << 10

var (
	errAstray = errors.New("the hello was read in another way")
	errShape  = errors.New("the flight does not look like the cover's")
	errCover  = errors.New("the cover has the word")
)

type phase uint8

const (
	phaseHello  phase = iota // the module reads the hello
	phaseFlight              // it has sent its flight and waits for the client's Finished
	phaseFailed              // it has lost
)

// standin is the client's connection as the module sees it.
type standin struct {
	*socket
	x    *exchange
	open atomic.Bool // the handshake is over, the rest goes straight through

	mu    sync.Mutex
	phase phase
	hello []byte // still to be read by the module
	held  []byte // written by the module after its flight

	// For the reader alone, until open.
	raw       []byte // read from the client and not yet looked at
	record    []byte // the rest of a record that the module is reading
	withheld  []byte // records that the module has got and the cover has not
	failed    error  // why there is no further record
	clientEnd error
}

// Read gives the module the hello, then records of type application data. Everything
// else goes to the cover.
func (s *standin) Read(p []byte) (int, error) {
	if s.open.Load() {
		if len(s.raw) > 0 {
			n := copy(p, s.raw)
			if s.raw = s.raw[n:]; len(s.raw) == 0 {
				s.raw = nil
			}
			return n, nil
		}
		return s.socket.Read(p)
	}
	s.mu.Lock()
	if len(s.hello) > 0 {
		n := copy(p, s.hello)
		s.hello = s.hello[n:]
		s.mu.Unlock()
		return n, nil
	}
	if s.phase != phaseFlight {
		s.phase = phaseFailed
		s.mu.Unlock()
		return 0, errAstray
	}
	s.mu.Unlock()
	if len(s.record) == 0 {
		if err := s.next(); err != nil {
			s.failed = err
			return 0, err
		}
	}
	n := copy(p, s.record)
	s.record = s.record[n:]
	return n, nil
}

// next waits for an application data record.
func (s *standin) next() error {
	for {
		if len(s.raw) >= recordHeader {
			size := recordHeader + recordSize(s.raw)
			switch {
			case s.raw[0] == typeChangeCipherSpec && size == 6 && len(s.raw) >= size && s.raw[recordHeader] == 1:
				// Meaningless in TLS 1.3, but servers count them.
				if s.x.toCover(s.raw[:size]) != nil {
					return errCover
				}
				s.raw = s.raw[size:]
				continue
			case s.raw[0] == typeChangeCipherSpec && size == 6 && len(s.raw) < size:
			case s.raw[0] != typeApplicationData || s.raw[1] != 3 || s.raw[2] != 3 || size > recordHeader+maxCipher || size == recordHeader:
				return errCover
			case len(s.raw) >= size:
				s.record = s.raw[:size:size]
				s.withheld = append(s.withheld, s.record...)
				s.raw = s.raw[size:]
				if len(s.withheld) > keptBytes {
					return errCover
				}
				return nil
			}
		}
		buf := make([]byte, 2048)
		n, err := s.socket.Read(buf)
		s.raw = append(s.raw, buf[:n]...)
		if n > 0 {
			s.x.touch()
		}
		if err != nil && n == 0 {
			if !isTimeout(err) {
				s.clientEnd = err
			}
			return err
		}
	}
}

// Write takes the module's flight, which must look like the cover's, then keeps what
// follows until it is known that the handshake has succeeded.
func (s *standin) Write(p []byte) (int, error) {
	if s.open.Load() {
		return s.socket.Write(p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.phase {
	case phaseHello:
		if err := s.fly(p); err != nil {
			s.phase = phaseFailed
			return 0, err
		}
		s.phase = phaseFlight
	case phaseFlight:
		if len(s.held)+len(p) > maxHeld {
			return 0, errShape
		}
		s.held = append(s.held, p...)
	default:
		return 0, errAstray
	}
	return len(p), nil
}

func (s *standin) fly(p []byte) error {
	s.x.mu.Lock()
	defer s.x.mu.Unlock()
	if bytes.HasPrefix(s.x.kept, p) {
		return errAstray // it wants to pass on the cover's own answer
	}
	lengths, rest := recordLengths(p)
	end := 0
	for _, n := range lengths {
		if len(s.x.kept) < end+recordHeader || recordHeader+recordSize(s.x.kept[end:]) != n {
			return errShape
		}
		end += n
	}
	if rest != len(p) || end == 0 {
		return errShape
	}
	if _, err := s.socket.Write(p); err != nil {
		return err
	}
	s.x.flight = end
	s.x.spoken()
	return nil
}

// enter makes the stand-in transparent after a handshake that has succeeded.
func (s *standin) enter() error {
	_, err := s.socket.Write(s.held)
	s.held, s.withheld = nil, nil
	s.open.Store(true)
	return err
}

// unread are the bytes of the client that the cover has not seen and could read. Records
// that the module opened are of keys that the cover has not: had one been wrong, the module
// would have written an alert. When it failed over such a record, that was the client's alert.
func (s *standin) unread() (rest []byte, alert bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) > 0 || len(s.record) > 0 {
		return append(s.withheld, s.raw...), false
	}
	return s.raw, len(s.withheld) > 0 && s.failed == nil
}

// RemoteAddr names nobody while the module may put it into an error.
func (s *standin) RemoteAddr() net.Addr {
	if s.open.Load() {
		return s.socket.RemoteAddr()
	}
	return &net.UnixAddr{Name: "client", Net: "unix"}
}

// Close, CloseWrite and the deadlines are the module's only after the handshake: before it
// the socket may still be the cover's.
func (s *standin) Close() error {
	if s.open.Load() {
		return s.socket.Close()
	}
	return nil
}

func (s *standin) CloseWrite() error {
	if s.open.Load() {
		return s.socket.CloseWrite()
	}
	return nil
}

func (s *standin) SetDeadline(t time.Time) error {
	return s.deadline(s.socket.SetDeadline, t)
}

func (s *standin) SetReadDeadline(t time.Time) error {
	return s.deadline(s.socket.SetReadDeadline, t)
}

func (s *standin) SetWriteDeadline(t time.Time) error {
	return s.deadline(s.socket.SetWriteDeadline, t)
}

func (s *standin) deadline(set func(time.Time) error, t time.Time) error {
	if s.open.Load() {
		return set(t)
	}
	return nil
}

var _ transport.CloseWriter = (*standin)(nil)

// mirror is the cover as the module sees it: record by record, and silent once the
// flight is out.
type mirror struct {
	x       *exchange
	address net.Addr
	// All under x.mu.
	due     int  // bytes of the hello that the module has not read yet
	at      int  // read so far
	records int  // of them
	ticket  bool // a session ticket ends the cover's flight
	closed  bool
}

// lastMessage is the number of records before a ticket in the cover's flight.
const lastMessage = 6

// ticketTime is how long a ticket that should be there is waited for.
const ticketTime = 300 * time.Millisecond

// Read gives one record, the last one together with the ticket behind it. The module
// copies the size of each, so a record that it cannot hold ends its part. It must not
// see any before it knows whose hello it is: the first answer decides for it.
func (m *mirror) Read(p []byte) (int, error) {
	x := m.x
	x.mu.Lock()
	defer x.mu.Unlock()
	for {
		rest := x.kept[min(m.at, len(x.kept)):]
		lengths, _ := recordLengths(rest)
		switch {
		case m.closed || x.mode != keeping:
			return 0, net.ErrClosed
		case m.due > 0 || x.flight > 0: // silent
		case len(rest) >= recordHeader && recordHeader+recordSize(rest) > min(maxMirrored, len(p)):
			return 0, errShape
		case len(lengths) == 1 && m.records == lastMessage-1 && m.ticket && x.ended == nil:
			m.await()
			continue
		case len(lengths) > 0:
			n := lengths[0]
			if len(lengths) > 1 && m.records == lastMessage-1 && m.ticket && n+lengths[1] <= len(p) {
				n += lengths[1]
			}
			m.at += copy(p, rest[:n])
			m.records++
			return n, nil
		case x.ended != nil:
			return 0, io.EOF
		}
		x.changed.Wait()
	}
}

// await waits for the ticket for some time and then no more. x.mu is held.
func (m *mirror) await() {
	timer := time.AfterFunc(ticketTime, func() {
		m.x.mu.Lock()
		defer m.x.mu.Unlock()
		m.ticket = false
		m.x.changed.Broadcast()
	})
	defer timer.Stop()
	m.x.changed.Wait()
}

// Write drops the hello, which the cover already has. The module decides before it
// lets its reader go on.
func (m *mirror) Write(p []byte) (int, error) {
	m.x.mu.Lock()
	defer m.x.mu.Unlock()
	m.due = max(m.due-len(p), 0)
	m.x.changed.Broadcast()
	return len(p), nil
}

// Close wakes the reader.
func (m *mirror) Close() error {
	m.x.mu.Lock()
	defer m.x.mu.Unlock()
	m.closed = true
	m.x.changed.Broadcast()
	return nil
}

// CloseWrite does nothing: what ends is decided by the exchange.
func (m *mirror) CloseWrite() error                { return nil }
func (m *mirror) LocalAddr() net.Addr              { return m.address }
func (m *mirror) RemoteAddr() net.Addr             { return m.address }
func (m *mirror) SetDeadline(time.Time) error      { return nil }
func (m *mirror) SetReadDeadline(time.Time) error  { return nil }
func (m *mirror) SetWriteDeadline(time.Time) error { return nil }
