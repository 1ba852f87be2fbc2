package inner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

const (
	nicID = 1
	// MinMTU is IPv6's least; smaller packets are made by shorter segments.
	MinMTU = header.IPv6MinimumMTU
	// headerSize is what IPv6 and TCP with timestamps take of a packet.
	headerSize = ipSize + 20 + 12
)

// Times of TCP: how long a peer that does not answer is kept.
const (
	keepCount = 4
	timeWait  = 2 * time.Second
	lingering = 30 * time.Second
)

// Options make a Net.
type Options struct {
	// Address is our own.
	Address netip.Addr
	// MTU is the largest inner packet.
	MTU int
	// Padding is how many zero bytes are added to short packets.
	Padding obfs.Range
	// Silence is how long a peer may be silent, although it was spoken to, before
	// its connections end.
	Silence time.Duration
}

// Net is the network inside the tunnel.
type Net struct {
	link  *link
	stack *stack.Stack
	addr  tcpip.FullAddress
	mss   int // advertised, 0 where the MTU says it

	silence time.Duration
}

// New makes a network.
func New(o Options) (*Net, error) {
	cut := cutter{padLow: int(o.Padding.Low), padHigh: int(o.Padding.High), mtu: max(o.MTU, MinMTU)}
	if o.Silence <= 0 {
		o.Silence = 90 * time.Second
	}
	n := &Net{silence: o.Silence, addr: tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(o.Address.AsSlice())}}
	if o.MTU < MinMTU {
		cut.limit = o.MTU - headerSize
		n.mss = o.MTU - ipSize - 20
		cut.mtu = o.MTU
	}
	n.link = newLink(max(o.MTU, MinMTU), cut)
	n.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, icmp.NewProtocol6},
	})
	if err := n.setup(o.Address); err != nil {
		n.stack.Destroy()
		return nil, err
	}
	return n, nil
}

func (n *Net) setup(addr netip.Addr) error {
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	// Not cubic: in this version its window can shrink to nothing and stay there.
	reno, wait, linger := tcpip.CongestionControlOption("reno"), tcpip.TCPTimeWaitTimeoutOption(timeWait), tcpip.TCPLingerTimeoutOption(lingering)
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 4 << 20}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 4 << 20}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &reno, &wait, &linger, &send, &receive} {
		if err := n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("inner: option %T: %s", o, err)
		}
	}
	if err := n.stack.CreateNIC(nicID, nic{n.link}); err != nil {
		return fmt.Errorf("inner: interface: %s", err)
	}
	err := n.stack.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
		Protocol:          ipv6.ProtocolNumber,
		AddressWithPrefix: tcpip.AddrFromSlice(addr.AsSlice()).WithPrefix(),
	}, stack.AddressProperties{})
	if err != nil {
		return fmt.Errorf("inner: address: %s", err)
	}
	n.stack.AddRoute(tcpip.Route{Destination: header.IPv6EmptySubnet, NIC: nicID})
	return nil
}

// Device is the network's end for WireGuard, which closes it.
func (n *Net) Device() tun.Device { return n.link }

// Mute stops what is sent, as the death of the process would.
func (n *Net) Mute() { _ = n.link.Close() }

// Close ends every connection and waits for the stack.
func (n *Net) Close() {
	_ = n.link.Close()
	n.stack.Destroy()
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

func addrOf(a tcpip.FullAddress) net.Addr {
	return &net.TCPAddr{IP: net.IP(a.Addr.AsSlice()), Port: int(a.Port)}
}

// tune sets what every connection has.
func (n *Net) tune(ep tcpip.Endpoint) {
	ep.SocketOptions().SetKeepAlive(true)
	// An idle connection is asked after half of the silence, the rest is for answers.
	idle, interval, timeout := tcpip.KeepaliveIdleOption(n.silence/2), tcpip.KeepaliveIntervalOption(n.silence/2/keepCount), tcpip.TCPUserTimeoutOption(n.silence)
	// These cannot fail on a TCP endpoint.
	_ = ep.SetSockOpt(&idle)
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOpt(&timeout)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepCount)
	if n.mss > 0 {
		_ = ep.SetSockOptInt(tcpip.MaxSegOption, n.mss)
	}
}

// Dial opens a TCP connection; ctx bounds the dial alone.
func (n *Net) Dial(ctx context.Context, to netip.AddrPort) (*Conn, error) {
	wq := new(waiter.Queue)
	ep, err := n.stack.NewEndpoint(tcp.ProtocolNumber, ipv6.ProtocolNumber, wq)
	if err != nil {
		return nil, errorOf(err)
	}
	n.tune(ep)
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	err = ep.Connect(full(to))
	if _, started := err.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			ep.Abort()
			return nil, ctx.Err()
		case <-ready:
		}
		err = ep.LastError()
	}
	if err != nil {
		ep.Close()
		return nil, errorOf(err)
	}
	return newConn(ep, wq, n.silence/2), nil
}

// Listener accepts TCP connections.
type Listener struct {
	n      *Net
	ep     tcpip.Endpoint
	ready  chan struct{}
	closed chan struct{}
}

// Listen accepts connections to our address at a port; backlog bounds those that
// wait to be accepted.
func (n *Net) Listen(port uint16, backlog int) (*Listener, error) {
	wq := new(waiter.Queue)
	ep, err := n.stack.NewEndpoint(tcp.ProtocolNumber, ipv6.ProtocolNumber, wq)
	if err != nil {
		return nil, errorOf(err)
	}
	n.tune(ep)
	at := n.addr
	at.Port = port
	if err = ep.Bind(at); err == nil {
		err = ep.Listen(backlog)
	}
	if err != nil {
		ep.Close()
		return nil, errorOf(err)
	}
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents)
	wq.EventRegister(&entry)
	return &Listener{n: n, ep: ep, ready: ready, closed: make(chan struct{})}, nil
}

// Accept waits for the next connection; net.ErrClosed after Close.
func (l *Listener) Accept() (*Conn, error) {
	for {
		ep, wq, err := l.ep.Accept(nil)
		if err == nil {
			l.n.tune(ep)
			return newConn(ep, wq, l.n.silence/2), nil
		}
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		default:
		}
		if _, wait := err.(*tcpip.ErrWouldBlock); !wait {
			return nil, errorOf(err)
		}
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-l.ready:
		}
	}
}

// Close ends Accept, once.
func (l *Listener) Close() {
	close(l.closed)
	l.ep.Close()
}

// errorOf turns the stack's errors into those of the system.
func errorOf(err tcpip.Error) error {
	switch err.(type) {
	case nil:
		return nil
	case *tcpip.ErrConnectionRefused:
		return syscall.ECONNREFUSED
	case *tcpip.ErrConnectionReset:
		return syscall.ECONNRESET
	case *tcpip.ErrConnectionAborted, *tcpip.ErrAborted:
		return syscall.ECONNABORTED
	case *tcpip.ErrTimeout:
		return syscall.ETIMEDOUT
	case *tcpip.ErrClosedForSend:
		return syscall.EPIPE
	case *tcpip.ErrHostUnreachable, *tcpip.ErrNetworkUnreachable:
		return syscall.EHOSTUNREACH
	}
	return errors.New(err.String())
}
