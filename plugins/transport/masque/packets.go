package masque

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/commucat/commucat/sdk/transport"
)

// packetQueue is how many packets wait for the inner QUIC; what comes when it is
// full is lost, as on a network.
const packetQueue = 1024

// packetMost is the largest packet that quic-go reads; the queue keeps its buffers, and
// a guest must not make it keep 64 KiB for each.
const packetMost = 1452

// packets is the packet socket of an inner QUIC, whose packets travel through
// tunnels. Each tunnel is an address; the client's end has one.
type packets struct {
	local *net.UDPAddr
	// send sends packets of one size to an address, one where size is 0.
	send func(p []byte, size int, to netip.AddrPort) error

	mu       sync.Mutex
	wake     sync.Cond
	queue    []packet // a ring
	head, n  int
	deadline time.Time
	timer    *time.Timer
	closed   bool
}

type packet struct {
	data []byte
	from *net.UDPAddr
}

func newPackets(local *net.UDPAddr, send func(p []byte, size int, to netip.AddrPort) error) *packets {
	p := &packets{local: local, send: send, queue: make([]packet, packetQueue)}
	p.wake.L = &p.mu
	return p
}

// push takes a copy of a packet from a tunnel.
func (p *packets) push(data []byte, from *net.UDPAddr) {
	p.mu.Lock()
	if p.closed || p.n == len(p.queue) || len(data) > packetMost {
		p.mu.Unlock()
		return
	}
	one := &p.queue[(p.head+p.n)%len(p.queue)]
	one.data, one.from = append(one.data[:0], data...), from
	p.n++
	p.mu.Unlock()
	p.wake.Signal()
}

// wait returns with the lock held when there is a packet; else without it.
func (p *packets) wait() error {
	p.mu.Lock()
	for p.n == 0 {
		var err error
		switch {
		case p.closed:
			err = net.ErrClosed
		case !p.deadline.IsZero() && !time.Now().Before(p.deadline):
			err = os.ErrDeadlineExceeded
		}
		if err != nil {
			p.mu.Unlock()
			return err
		}
		p.wake.Wait()
	}
	return nil
}

func (p *packets) pop(into []byte) (n int, from *net.UDPAddr) {
	one := &p.queue[p.head]
	n, from = copy(into, one.data), one.from
	one.from = nil // the buffer is used again
	p.head = (p.head + 1) % len(p.queue)
	p.n--
	return n, from
}

// ReadFrom implements net.PacketConn.
func (p *packets) ReadFrom(b []byte) (int, net.Addr, error) {
	if err := p.wait(); err != nil {
		return 0, nil, err
	}
	defer p.mu.Unlock()
	n, from := p.pop(b)
	return n, from, nil
}

// ReadBatch reads as many packets as there are and fit; quic-go calls it instead of
// recvmmsg.
func (p *packets) ReadBatch(ms []ipv4.Message, _ int) (int, error) {
	if err := p.wait(); err != nil {
		return 0, err
	}
	defer p.mu.Unlock()
	i := 0
	for ; i < len(ms) && p.n > 0; i++ {
		n, from := p.pop(ms[i].Buffers[0])
		ms[i].N, ms[i].NN, ms[i].Addr = n, 0, from
	}
	return i, nil
}

// WriteTo implements net.PacketConn.
func (p *packets) WriteTo(b []byte, to net.Addr) (int, error) {
	return len(b), p.send(b, 0, transport.AddrPort(to))
}

// Close implements net.PacketConn.
func (p *packets) Close() error {
	p.mu.Lock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	p.wake.Broadcast()
	return nil
}

// LocalAddr implements net.PacketConn.
func (p *packets) LocalAddr() net.Addr { return p.local }

// SetDeadline implements net.PacketConn; there is no deadline for writing.
func (p *packets) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn.
func (p *packets) SetWriteDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.PacketConn; it wakes a blocked read, on which
// quic-go relies to end.
func (p *packets) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	p.deadline = t
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	if d := time.Until(t); !t.IsZero() && d > 0 {
		p.timer = time.AfterFunc(d, p.wake.Broadcast)
	}
	p.mu.Unlock()
	p.wake.Broadcast()
	return nil
}

// SetReadBuffer and SetWriteBuffer exist because quic-go asks.
func (p *packets) SetReadBuffer(int) error  { return nil }
func (p *packets) SetWriteBuffer(int) error { return nil }

// batched is packets as quic-go takes them with everything it offers on Linux:
// several packets for one call, both ways, and path MTU discovery. The socket below
// stands in where quic-go asks the kernel what it can do; nothing is sent on it.
type batched struct {
	*packets
	below *socket
	asked int
}

// SyscallConn hides the socket from the first two calls, see socket.
func (b *batched) SyscallConn() (syscall.RawConn, error) {
	if b.asked++; b.asked <= 2 {
		return nil, errors.ErrUnsupported
	}
	return b.below.UDPConn.SyscallConn()
}

// ReadMsgUDP exists because quic-go's interface has it; it calls ReadBatch.
func (b *batched) ReadMsgUDP(p, _ []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	if err := b.wait(); err != nil {
		return 0, 0, 0, nil, err
	}
	defer b.mu.Unlock()
	n, from = b.pop(p)
	return n, 0, 0, from, nil
}

// WriteMsgUDP sends what may be several packets of one size, as with UDP_SEGMENT.
func (b *batched) WriteMsgUDP(p, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	if err := b.send(p, segment(oob), to.AddrPort()); err != nil {
		return 0, 0, err
	}
	return len(p), len(oob), nil
}

// over gives the packet socket of an inner QUIC above the outer one's.
func (p *packets) over(below net.PacketConn) net.PacketConn {
	if s, ok := below.(*socket); ok && batches {
		return &batched{packets: p, below: s}
	}
	return p
}
