package inner

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Conn is a TCP connection inside the tunnel. An idle one holds no buffer.
type Conn struct {
	ep            tcpip.Endpoint
	local, remote net.Addr
	readable      chan struct{}
	writable      chan struct{}
	closed        chan struct{}
	closing       atomic.Bool
	onClose       atomic.Pointer[func()]
	idle          time.Duration // before it is asked whether the peer lives

	readMu  sync.Mutex
	readErr error // sticks

	writeMu sync.Mutex

	read, write deadline
}

var (
	_ net.Conn    = (*Conn)(nil)
	_ io.WriterTo = (*Conn)(nil)
)

func newConn(ep tcpip.Endpoint, wq *waiter.Queue, idle time.Duration) *Conn {
	c := &Conn{ep: ep, idle: idle, closed: make(chan struct{})}
	in, readable := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	out, writable := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	c.readable, c.writable = readable, writable
	// They stay for the endpoint's life.
	wq.EventRegister(&in)
	wq.EventRegister(&out)
	if a, err := ep.GetLocalAddress(); err == nil {
		c.local = addrOf(a)
	}
	if a, err := ep.GetRemoteAddress(); err == nil {
		c.remote = addrOf(a)
	}
	c.read.init()
	c.write.init()
	return c
}

func (c *Conn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if len(b) == 0 {
		return 0, nil
	}
	for {
		if n, err := c.tryRead(b); n > 0 || err != nil {
			return n, err
		}
		if err := c.await("read", c.readable, &c.read); err != nil {
			return 0, err
		}
	}
}

// tryRead reads what is there; 0 and nil is nothing yet.
func (c *Conn) tryRead(b []byte) (int, error) {
	if err := c.over("read", &c.read); err != nil {
		return 0, err
	}
	if c.readErr != nil {
		return 0, c.readErr
	}
	w := tcpip.SliceWriter(b)
	r, err := c.ep.Read(&w, tcpip.ReadOptions{})
	switch err.(type) {
	case nil:
		c.ep.ModerateRecvBuf(r.Count)
		return r.Count, nil
	case *tcpip.ErrWouldBlock:
		return 0, nil
	case *tcpip.ErrClosedForReceive:
		c.readErr = io.EOF
	default:
		c.readErr = c.fail("read", errorOf(err))
	}
	if c.closing.Load() {
		return 0, c.fail("read", net.ErrClosed)
	}
	return 0, c.readErr
}

// over says whether an operation must not begin.
func (c *Conn) over(op string, d *deadline) error {
	if c.closing.Load() {
		return c.fail(op, net.ErrClosed)
	}
	if d.passed() {
		return c.fail(op, os.ErrDeadlineExceeded)
	}
	return nil
}

// await waits until an operation is worth another try.
func (c *Conn) await(op string, ready <-chan struct{}, d *deadline) error {
	select {
	case <-ready:
		return nil
	case <-c.closed:
		return c.fail(op, net.ErrClosed)
	case <-d.wait():
		return nil // it may have been moved; over looks
	}
}

// buffers are lent to WriteTo while there is something to write.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// WriteTo writes everything that comes to w until the end of the stream. While
// nothing comes it holds no buffer.
func (c *Conn) WriteTo(w io.Writer) (total int64, err error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for {
		b := buffers.Get().(*[64 << 10]byte)
		n, err := c.tryRead(b[:])
		if n > 0 {
			var m int
			m, err = w.Write(b[:n])
			total += int64(m)
		}
		buffers.Put(b)
		if err == io.EOF {
			return total, nil
		}
		if err == nil && n == 0 {
			err = c.await("read", c.readable, &c.read)
		}
		if err != nil {
			return total, err
		}
	}
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	var r bytes.Reader
	done := 0
	for {
		if err := c.over("write", &c.write); err != nil {
			return done, err
		}
		if done == len(b) {
			return done, nil
		}
		r.Reset(b[done:])
		n, err := c.ep.Write(&r, tcpip.WriteOptions{})
		done += int(n)
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			if err := c.await("write", c.writable, &c.write); err != nil {
				return done, err
			}
		default:
			if c.closing.Load() {
				return done, c.fail("write", net.ErrClosed)
			}
			return done, c.fail("write", errorOf(err))
		}
	}
}

// Close ends the connection; what was written is still sent.
func (c *Conn) Close() error {
	if c.closing.Swap(true) {
		return nil
	}
	close(c.closed)
	c.ep.Close()
	c.ended()
	return nil
}

// Abort ends the connection at once; the peer gets a reset.
func (c *Conn) Abort() {
	if c.closing.Swap(true) {
		return
	}
	c.ep.Abort()
	close(c.closed)
	c.ended()
}

func (c *Conn) ended() {
	if f := c.onClose.Swap(nil); f != nil {
		(*f)()
	}
}

// OnClose has f called once when the connection has been closed on this side, at
// once if it is.
func (c *Conn) OnClose(f func()) {
	c.onClose.Store(&f)
	if c.closing.Load() {
		c.ended()
	}
}

// CloseWrite ends what is sent; reading goes on.
func (c *Conn) CloseWrite() error {
	if c.closing.Load() {
		return c.fail("close", net.ErrClosed)
	}
	if err := c.ep.Shutdown(tcpip.ShutdownWrite); err != nil {
		return c.fail("close", errorOf(err))
	}
	return nil
}

// Poke asks the peer now whether it knows the connection; one that does not resets
// it. It does not wait for the answer.
func (c *Conn) Poke() {
	now, later := tcpip.KeepaliveIdleOption(time.Millisecond), tcpip.KeepaliveIdleOption(c.idle)
	// These cannot fail on a TCP endpoint, nor on one that is closed meanwhile.
	_ = c.ep.SetSockOpt(&now)
	// To set it back at once would take the question back; once asked it may be.
	time.AfterFunc(20*time.Millisecond, func() { _ = c.ep.SetSockOpt(&later) })
}

// Gone says that everything sent was acknowledged or is lost, so that the network
// may end. The network stack tells nobody when an end of stream is acknowledged: who
// waits for that has to look.
func (c *Conn) Gone() bool {
	switch tcp.EndpointState(c.ep.State()) {
	case tcp.StateFinWait2, tcp.StateTimeWait, tcp.StateClose, tcp.StateError:
		return true
	}
	return false
}

// LocalAddr is our address inside the tunnel.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the peer's address inside the tunnel.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn; a passed deadline does not end the stream.
func (c *Conn) SetDeadline(t time.Time) error {
	c.read.set(t)
	c.write.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.read.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.write.set(t)
	return nil
}

// deadline is a point in time that can be moved while somebody waits for it.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	ch    chan struct{} // closed when it has passed, or was moved
	past  bool
}

func (d *deadline) init() { d.ch = make(chan struct{}) }

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	close(d.ch) // whoever waits looks again
	ch := make(chan struct{})
	d.ch, d.past = ch, false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.past = true
		return
	}
	d.timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.ch == ch {
			d.past = true
			close(ch)
			d.ch = make(chan struct{})
		}
	})
}

func (d *deadline) passed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.past
}

func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.past {
		done := make(chan struct{})
		close(done)
		return done
	}
	return d.ch
}
