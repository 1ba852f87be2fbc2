package handoff

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/sdk/transport"
)

const (
	// smallBuffer is what an idle stream holds, largeBuffer what a busy one borrows.
	smallBuffer = 1 << 10
	largeBuffer = 32 << 10
	// busy is a read after which the next one does not block, as a rule: what is left
	// of 16 KiB after a small read, the longest record of TLS.
	busy = largeBuffer/2 - smallBuffer
	// stall is how often writes that last are looked for, linger how long one may
	// last when the host is gone.
	stall  = 2 * time.Second
	linger = 10 * time.Second
)

// Pumps joins conns of this process to streams that were handed over.
type Pumps struct {
	buffers sync.Pool
	began   time.Time
	writing atomic.Int64 // writes to clients that have not returned

	mu       sync.Mutex
	open     map[*pump]struct{}
	idle     chan struct{} // closed when nothing is open; nil while nobody asks
	watch    *time.Timer   // one for all: look is called after stall
	watching bool
}

// NewPumps makes an empty set.
func NewPumps() *Pumps {
	return &Pumps{
		buffers: sync.Pool{New: func() any { return new([largeBuffer]byte) }}, began: time.Now(),
		open: map[*pump]struct{}{},
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
	set  *Pumps
	conn net.Conn
	end  *Stream
	done func()
	both sync.WaitGroup
	// writes is when the write to the client began that lasts, from the set's
	// beginning; 0 if none does.
	writes atomic.Int64

	// Of the direction to the client: what was read last.
	buf    *[largeBuffer]byte
	n      int
	failed error

	small [smallBuffer]byte
}

func (p *Pumps) join(conn net.Conn, end *Stream, done func()) {
	one := &pump{set: p, conn: conn, end: end, done: done}
	p.mu.Lock()
	p.open[one] = struct{}{}
	p.mu.Unlock()
	one.both.Add(1)
	go one.up()
	go one.down()
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
// is borrowed after a read that filled it, and kept while reads are those of a busy
// stream.
func (p *pump) up() {
	defer p.both.Done()
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
		case n < busy && large != nil:
			p.set.buffers.Put(large)
			large = nil
		}
	}
	if large != nil {
		p.set.buffers.Put(large)
	}
}

// down copies from the host to the client, and ends the pump.
func (p *pump) down() {
	p.toClient()
	p.both.Wait()
	p.leave()
}

func (p *pump) toClient() {
	if err := p.copyDown(); err != nil {
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
func (p *pump) write(b []byte) error {
	p.writes.Store(int64(time.Since(p.set.began)) + 1)
	if p.set.writing.Add(1) == 1 {
		p.set.look(false)
	}
	_, err := p.conn.Write(b)
	p.set.writing.Add(-1)
	p.writes.Store(0)
	return err
}

// look finds writes that last, for as long as anything is written. now says that it is
// time.
func (p *Pumps) look(now bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watching && !now {
		return
	}
	if now {
		late := int64(time.Since(p.began) - linger)
		for one := range p.open {
			if at := one.writes.Load(); at != 0 && at <= late && one.end.gone() {
				one.conn.Close()
			}
		}
		if p.watching = p.writing.Load() > 0; !p.watching {
			return
		}
	}
	p.watching = true
	if p.watch == nil {
		p.watch = time.AfterFunc(stall, func() { p.look(true) })
		return
	}
	p.watch.Reset(stall)
}

// copyDown copies until the end of the stream, with buffers that are borrowed only
// while there is something in them.
func (p *pump) copyDown() error {
	take := p.take
	for {
		if err := p.end.raw.Read(take); err != nil {
			return p.end.wrap("read", err)
		}
		n, err := p.n, p.failed
		if err == nil && n > 0 {
			err = p.write(p.buf[:n])
		}
		p.set.buffers.Put(p.buf)
		p.buf = nil
		if err != nil || n == 0 {
			return err
		}
	}
}

// take reads into a buffer that it borrows; false: wait, without one.
func (p *pump) take(fd uintptr) bool {
	p.buf = p.set.buffers.Get().(*[largeBuffer]byte)
	for {
		p.n, p.failed = recv(int(fd), p.buf[:])
		switch p.failed {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			p.set.buffers.Put(p.buf)
			p.buf = nil
			return false
		}
		return true
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
