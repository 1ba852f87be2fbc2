package bind

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

// A Socket is a UDP socket with the parameters that its peers use.
type Socket struct {
	Conn   net.PacketConn
	Params *obfs.Params
	// Errors asks the system to tell when the network says that nobody listens.
	// It is for sockets with one peer.
	Errors bool
}

// A Guard decides who may open a session.
type Guard interface {
	// Known says whether a static key may come at all. It must be cheap: whoever
	// knows our public key can ask for any key.
	Known(static [32]byte) bool
	// Admit is asked once the sender has proved its key, with the time that its
	// initiation carries: a time that is not later than the last one is a
	// replay. The peer must be known to WireGuard and (Bind.Add) to the bind when
	// it returns true.
	Admit(static [32]byte, stamp obfs.Stamp, from *Endpoint) bool
}

// Event is something that a client wants to know of its way to the server.
type Event uint8

// The events.
const (
	// GotResponse: a handshake response with a good MAC1.
	GotResponse Event = iota + 1
	// GotCookie: the server is under load.
	GotCookie
	// GotData: a data packet, for the first time.
	GotData
	// SentData: a data packet left, for the first time; there is a session.
	SentData
	// Refused: the network says that nobody listens, or does not let us send.
	Refused
)

// Options make a Bind.
type Options struct {
	// Private is our static key.
	Private [32]byte
	// Sockets stay the caller's: Close only stops using them.
	Sockets []Socket
	Guard   Guard
	// Stray gets datagrams that are no message, in the socket's reading
	// goroutine; it must not keep d. May be nil.
	Stray func(d []byte, from *Endpoint)
	// StraySize is the one length of datagrams that Stray still gets while
	// strangers flood a socket. 0 has no socket walled off.
	StraySize int
	// Event is told what happens; may be nil. It is called concurrently.
	Event func(Event)
	// Batch is how many packets are handled at once, at most 128; 0 is 128.
	Batch int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Bind is a conn.Bind. It may be opened again after Close.
type Bind struct {
	o       Options
	reader  *obfs.Reader
	macKey  [32]byte // of messages to us
	oven    *obfs.Oven
	sockets []*socket
	gate    atomic.Pointer[gate] // a new one for each Open
	peers   peers
	sent    sent
	ours    indices
	stats   Stats
	// remote replaces every endpoint (a client that hops); nil is none.
	remote  atomic.Pointer[Endpoint]
	gotData atomic.Bool
	sentAny atomic.Bool

	running sync.WaitGroup

	mu     sync.Mutex
	closed chan struct{} // while open
}

var _ conn.Bind = (*Bind)(nil)

// New makes a bind; Open starts it.
func New(o Options) (*Bind, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Batch <= 0 || o.Batch > conn.IdealBatchSize {
		o.Batch = conn.IdealBatchSize
	}
	if len(o.Sockets) == 0 {
		return nil, errors.New("bind: no socket")
	}
	reader, err := obfs.NewReader(o.Private)
	if err != nil {
		return nil, err
	}
	public := reader.Public()
	b := &Bind{o: o, reader: reader, macKey: obfs.MAC1Key(public), oven: obfs.NewOven(public, o.Now)}
	b.peers.init()
	b.sent.init()
	b.ours.init()
	b.gate.Store(newGate(b))
	for i, s := range o.Sockets {
		b.sockets = append(b.sockets, newSocket(i, s))
	}
	return b, nil
}

// Open starts reading. The port is that of the first socket, whatever is asked for.
func (b *Bind) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	for _, s := range b.sockets {
		if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
			return nil, 0, err
		}
	}
	closed, g := make(chan struct{}), newGate(b)
	b.closed = closed
	b.gate.Store(g)
	b.running.Go(func() { g.run(closed) })
	fns := []conn.ReceiveFunc{func(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		return g.receive(closed, packets, sizes, eps)
	}}
	for _, s := range b.sockets {
		fns = append(fns, newReceiver(b, s, closed).receive)
	}
	return fns, b.sockets[0].local.Port(), nil
}

// Close stops reading; the receive functions return net.ErrClosed. The sockets
// stay open. It does not wait for a Guard that is being asked: see Wait.
func (b *Bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed == nil {
		return nil
	}
	close(b.closed)
	b.closed = nil
	for _, s := range b.sockets {
		// A socket that its owner has closed already wakes its reader as well.
		_ = s.conn.SetReadDeadline(time.Unix(1, 0))
		// What the owner does with it next may be of another shape.
		if s.batch != nil {
			s.batch.unwall()
		}
	}
	return nil
}

// Wait returns when nothing of a closed bind runs any more.
func (b *Bind) Wait() { b.running.Wait() }

// SetMark does nothing: marks need a capability.
func (b *Bind) SetMark(uint32) error { return nil }

// BatchSize is how many packets are received at once. Send takes any number.
func (b *Bind) BatchSize() int { return b.o.Batch }

// ParseEndpoint reads "address:port", which the first socket reaches, or
// "n/address:port" for the nth (see Endpoint.Text).
func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	socket := 0
	if number, rest, ok := strings.Cut(s, "/"); ok {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || int(n) >= len(b.sockets) {
			return nil, errors.New("bind: no such socket")
		}
		socket, s = int(n), rest
	}
	addr, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return &Endpoint{addr: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), socket: socket}, nil
}

// SetRemote sends everything to one address from now on, by the first socket,
// and takes what comes for the same peer's, wherever it comes from.
func (b *Bind) SetRemote(addr netip.AddrPort) {
	b.remote.Store(&Endpoint{addr: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())})
}

// Watch has GotData and SentData told once more.
func (b *Bind) Watch() {
	b.gotData.Store(false)
	b.sentAny.Store(false)
}

// WriteTo sends one datagram as it is, by the first socket.
func (b *Bind) WriteTo(d []byte, to netip.AddrPort) error { return b.Write(d, &Endpoint{addr: to}) }

// Write sends one datagram as it is, to where another one came from.
func (b *Bind) Write(d []byte, to *Endpoint) error {
	return b.sockets[to.socket].send(to, 0, [][]byte{d}, nil)
}

// Stats are counters since the start.
type Stats struct {
	// Unknown datagrams were no message; Forged ones looked like one; Strangers
	// are initiations of keys that the Guard does not know; Refused ones it did
	// not admit; Cookies were asked for; Dropped initiations found the gate full.
	Unknown, Forged, Strangers, Refused, Cookies, Dropped atomic.Uint64
	// Homeless data packets are for no session that there was lately; Walled
	// datagrams were dropped by the system, which looks at them as it does for
	// Unknown ones.
	Homeless, Walled atomic.Uint64
	// Admitted initiations went to WireGuard.
	Admitted atomic.Uint64
}

// Stats are the bind's counters.
func (b *Bind) Stats() *Stats { return &b.stats }

func (b *Bind) event(e Event) {
	if b.o.Event != nil {
		b.o.Event(e)
	}
}
