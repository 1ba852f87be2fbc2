package handoff

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/sdk/transport"
)

const (
	// smallBuffer is what an idle stream holds, largeBuffer what a busy one borrows.
	smallBuffer = 2 << 10
	largeBuffer = 32 << 10
	// stall is after what time a write is looked at, linger how long one may last
	// when the host is gone.
	stall  = 2 * time.Second
	linger = 10 * time.Second
)

// Pumps joins conns of this process to streams that were handed over.
type Pumps struct {
	buffers sync.Pool

	mu   sync.Mutex
	open map[*pump]struct{}
	idle chan struct{} // closed when nothing is open; nil while nobody asks
}

// NewPumps makes an empty set.
func NewPumps() *Pumps {
	return &Pumps{
		buffers: sync.Pool{New: func() any { return new([largeBuffer]byte) }},
		open:    map[*pump]struct{}{},
	}
}

// Open is how many streams are joined.
func (p *Pumps) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

// Wait returns when no stream is joined, or ctx has ended.
func (p *Pumps) Wait(ctx context.Context) error {
	p.mu.Lock()
	if len(p.open) == 0 {
		p.mu.Unlock()
		return nil
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	idle := p.idle
	p.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends every stream.
func (p *Pumps) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for one := range p.open {
		one.conn.Close()
		one.end.Close()
	}
}

// Give hands a conn over: a bare TCP or Unix socket as it is, anything else through
// a socketpair. m says what the conn is; its Kind is set here. The conn belongs to
// the receiver afterwards, or is closed if the answer is an error. done, which may be
// nil, is called when this process has no more part in the stream.
func (p *Pumps) Give(s *Socket, m *Message, conn net.Conn, deadline time.Time, done func()) error {
	if done == nil {
		done = func() {}
	}
	if bare, ok := Bare(conn); ok {
		m.Kind = KindSocket
		err := sendBare(s, m, bare, deadline)
		conn.Close()
		done()
		return err
	}
	err := p.pump(s, m, conn, deadline, done)
	if err != nil {
		conn.Close()
		done()
	}
	return err
}

func (p *Pumps) pump(s *Socket, m *Message, conn net.Conn, deadline time.Time, done func()) error {
	m.Kind = KindPump
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	end, err := NewStream(fds[0], &Message{}, nil)
	if err == nil {
		if err = s.Send(m, fds[1], deadline); err != nil {
			end.Close()
		}
	}
	unix.Close(fds[1])
	if err == nil {
		p.join(conn, end, done)
	}
	return err
}

// Bare finds the socket that is handed over instead of a copy of its bytes.
func Bare(conn net.Conn) (syscall.Conn, bool) {
	if a, ok := conn.(transport.Attached); ok {
		conn = a.Attached()
	}
	switch c := conn.(type) {
	case *net.TCPConn:
		return c, true
	case *net.UnixConn:
		return c, c.LocalAddr().Network() == "unix"
	}
	return nil, false
}

func sendBare(s *Socket, m *Message, c syscall.Conn, deadline time.Time) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = s.Send(m, int(fd), deadline) }); err != nil {
		return err
	}
	return failed
}

// pump is one joined stream. It is two goroutines and, while nothing moves, one
// small buffer.
type pump struct {
	set   *Pumps
	conn  net.Conn
	end   *Stream
	done  func()
	small [smallBuffer]byte

	// Of the direction to the client.
	timer   *time.Timer
	started time.Time
	timerMu sync.Mutex
	writing bool
}

func (p *Pumps) join(conn net.Conn, end *Stream, done func()) {
	one := &pump{set: p, conn: conn, end: end, done: done}
	p.mu.Lock()
	p.open[one] = struct{}{}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Add(2)
	go func() {
		defer both.Done()
		one.up()
	}()
	go func() {
		one.down()
		both.Done()
		both.Wait()
		one.leave()
	}()
}

func (p *pump) leave() {
	p.conn.Close()
	p.end.Close()
	p.done()
	p.set.mu.Lock()
	defer p.set.mu.Unlock()
	delete(p.set.open, p)
	if len(p.set.open) == 0 && p.set.idle != nil {
		close(p.set.idle)
		p.set.idle = nil
	}
}

// up copies from the client to the host. It blocks with the small buffer; a large one
// is borrowed while reads fill what they are given.
func (p *pump) up() {
	var large *[largeBuffer]byte
	for {
		b := p.small[:]
		if large != nil {
			b = large[:]
		}
		n, err := p.conn.Read(b)
		if n > 0 {
			if _, werr := p.end.Write(b[:n]); werr != nil {
				p.conn.Close()
				p.end.Close()
				break
			}
		}
		if err != nil {
			if err == io.EOF {
				_ = p.end.CloseWrite()
				break
			}
			p.conn.Close()
			p.end.Close()
			break
		}
		switch {
		case n == smallBuffer && large == nil:
			large = p.set.buffers.Get().(*[largeBuffer]byte)
		case n <= smallBuffer && large != nil:
			p.set.buffers.Put(large)
			large = nil
		}
	}
	if large != nil {
		p.set.buffers.Put(large)
	}
}

// down copies from the host to the client. While it waits it holds no buffer.
func (p *pump) down() {
	_, err := p.end.copyTo(p.set, p.write)
	if p.timer != nil {
		p.timer.Stop()
	}
	if err != nil {
		p.conn.Close()
		p.end.Close()
		return
	}
	// The host sends no more. Whether it still reads shows in the hang-up.
	if c, ok := p.conn.(transport.CloseWriter); ok && !p.end.gone() && c.CloseWrite() == nil {
		p.end.waitGone()
	}
	p.conn.Close()
}

// write is conn.Write that ends when the client takes nothing and the host has gone.
func (p *pump) write(b []byte) (int, error) {
	p.timerMu.Lock()
	p.writing, p.started = true, time.Now()
	if p.timer == nil {
		p.timer = time.AfterFunc(stall, p.look)
	} else {
		p.timer.Reset(stall)
	}
	p.timerMu.Unlock()
	n, err := p.conn.Write(b)
	p.timerMu.Lock()
	p.writing = false
	p.timer.Stop()
	p.timerMu.Unlock()
	return n, err
}

// look finds a write that lasts.
func (p *pump) look() {
	p.timerMu.Lock()
	defer p.timerMu.Unlock()
	if !p.writing {
		return
	}
	if time.Since(p.started) >= linger && p.end.gone() {
		p.conn.Close()
		return
	}
	p.timer.Reset(stall)
}

// copyTo reads until the end of the stream with buffers that are borrowed only while
// there is something in them.
func (s *Stream) copyTo(set *Pumps, write func([]byte) (int, error)) (int64, error) {
	var total int64
	var buf *[largeBuffer]byte
	var n int
	var failed error
	take := func(fd uintptr) bool {
		buf = set.buffers.Get().(*[largeBuffer]byte)
		for {
			n, failed = recv(int(fd), buf[:])
			switch failed {
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				set.buffers.Put(buf)
				buf = nil
				return false
			}
			return true
		}
	}
	for {
		if err := s.raw.Read(take); err != nil {
			return total, s.wrap("read", err)
		}
		var err error
		if n > 0 && failed == nil {
			_, err = write(buf[:n])
		}
		set.buffers.Put(buf)
		switch {
		case failed != nil:
			return total, s.wrap("read", failed)
		case n == 0:
			return total, nil
		case err != nil:
			return total, err
		}
		total += int64(n)
	}
}

// gone says that the peer has closed its end altogether, or this one is closed.
func (s *Stream) gone() bool {
	gone := true
	_ = s.raw.Control(func(fd uintptr) { gone = hungUp(int(fd)) })
	return gone
}

// waitGone waits for that; the end of the stream must have been read.
func (s *Stream) waitGone() {
	_ = s.raw.Read(func(fd uintptr) bool { return hungUp(int(fd)) })
}
