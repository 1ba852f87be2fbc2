package inner

import (
	"os"
	"sync"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// batchSize is how many packets Read gives at most.
	batchSize = 128
	// segmentSize is the most that TCP hands down in one piece.
	segmentSize = 32 << 10
	// queueBytes and queuePackets bound what waits for WireGuard; beyond that TCP
	// sees a loss.
	queueBytes   = 2 << 20
	queuePackets = 4096
)

// link is both the stack's network interface and WireGuard's tun device.
type link struct {
	mtu    int
	events chan tun.Event
	wake   chan struct{}
	closed chan struct{}
	once   sync.Once
	cut    cutter // belongs to the goroutine that reads

	mu         sync.Mutex
	dispatcher stack.NetworkDispatcher
	queue      []*stack.PacketBuffer
	head       int
	bytes      int
}

var (
	_ tun.Device         = (*link)(nil)
	_ stack.LinkEndpoint = nic{}
	_ stack.GSOEndpoint  = nic{}
)

func newLink(mtu int, cut cutter) *link {
	return &link{mtu: mtu, cut: cut, events: make(chan tun.Event), wake: make(chan struct{}, 1), closed: make(chan struct{})}
}

// WritePackets takes packets of the stack's.
func (l *link) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
		return 0, &tcpip.ErrClosedForSend{}
	default:
	}
	n := 0
	for _, p := range list.AsSlice() {
		if l.bytes+p.Size() > queueBytes || len(l.queue)-l.head >= queuePackets {
			break
		}
		l.bytes += p.Size()
		l.queue = append(l.queue, p.IncRef())
		n++
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	if n == 0 {
		return 0, &tcpip.ErrNoBufferSpace{}
	}
	return n, nil
}

// take gives the next packet of the queue, nil if there is none.
func (l *link) take() *stack.PacketBuffer {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.head == len(l.queue) {
		return nil
	}
	p := l.queue[l.head]
	l.queue[l.head] = nil
	l.bytes -= p.Size()
	if l.head++; l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	} else if l.head >= 1024 {
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
	return p
}

// Read gives WireGuard packets, waiting for the first.
func (l *link) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		n := 0
		for n < len(bufs) {
			if l.cut.done() {
				p := l.take()
				if p == nil {
					break
				}
				l.cut.start(p)
			}
			sizes[n] = l.cut.next(bufs[n][offset:])
			n++
		}
		if n > 0 {
			return n, nil
		}
		select {
		case <-l.wake:
		case <-l.closed:
			return 0, os.ErrClosed
		}
	}
}

// Write takes packets of one peer from WireGuard.
func (l *link) Write(bufs [][]byte, offset int) (int, error) {
	l.mu.Lock()
	d := l.dispatcher
	l.mu.Unlock()
	if d == nil {
		return 0, os.ErrClosed
	}
	j := joiner{deliver: func(p *stack.PacketBuffer) {
		d.DeliverNetworkPacket(header.IPv6ProtocolNumber, p)
		p.DecRef()
	}}
	for _, b := range bufs {
		j.add(b[offset:])
	}
	j.flush()
	return len(bufs), nil
}

// Close ends both directions.
func (l *link) Close() error {
	l.once.Do(func() {
		close(l.closed)
		close(l.events)
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, p := range l.queue[l.head:] {
			p.DecRef()
		}
		l.queue, l.head, l.bytes = nil, 0, 0
	})
	return nil
}

// MTU of the link, for both sides.
func (l *link) MTU() (int, error) { return l.mtu, nil }

// The rest of tun.Device.
func (l *link) File() *os.File           { return nil }
func (l *link) Name() (string, error)    { return "inner", nil }
func (l *link) Events() <-chan tun.Event { return l.events }
func (l *link) BatchSize() int           { return batchSize }

// nic is the stack's view of a link: the two interfaces name a method alike.
type nic struct{ *link }

// MTU is the largest packet.
func (n nic) MTU() uint32 { return uint32(n.mtu) }

// Close is the stack's; WireGuard closes the link.
func (n nic) Close() {}

// Attach joins the link to a stack, or with nil parts it.
func (l *link) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = d
}

// IsAttached says whether there is a stack.
func (l *link) IsAttached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dispatcher != nil
}

// SupportedGSO: segments longer than a packet are cut in Read.
func (l *link) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// GSOMaxSize is the longest segment.
func (l *link) GSOMaxSize() uint32 { return segmentSize }

// Capabilities: WireGuard has authenticated what comes.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// The rest of stack.LinkEndpoint: there are no frames below IP.
func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return 0 }
func (l *link) LinkAddress() tcpip.LinkAddress          { return "" }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) Wait()                                   {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (l *link) AddHeader(*stack.PacketBuffer)           {}
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *link) SetOnCloseAction(func())                 {}
