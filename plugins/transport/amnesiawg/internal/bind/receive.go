package bind

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

// inbox reads datagrams of one socket, many at once where the system can.
type inbox interface {
	// fill waits for datagrams.
	fill() error
	// next gives one of them, to be used before the next fill.
	next() (d []byte, from netip.AddrPort, local netip.Addr, ok bool)
}

// receiver is one socket's receive function. It belongs to one goroutine.
type receiver struct {
	b         *Bind
	s         *socket
	in        inbox
	mac       *obfs.MAC
	endpoints endpoints
	siege     siege
	closed    <-chan struct{}
	failures  int
}

func newReceiver(b *Bind, s *socket, closed <-chan struct{}) *receiver {
	var w wall
	if b.o.StraySize > 0 {
		w = s.newWall(b.o.StraySize)
	}
	return &receiver{
		b: b, s: s, in: s.newInbox(), mac: obfs.NewMAC(b.macKey),
		endpoints: endpoints{socket: s.index}, siege: newSiege(b, w), closed: closed,
	}
}

func (r *receiver) receive(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	for {
		n := 0
		for n < len(packets) {
			d, from, local, ok := r.in.next()
			if !ok {
				break
			}
			e := r.b.remote.Load()
			if e == nil {
				e = r.endpoints.get(from, local)
			}
			if size := r.take(packets[n], d, e); size > 0 {
				sizes[n], eps[n] = size, e
				n++
			}
		}
		if n > 0 {
			return n, nil
		}
		if err := r.fill(); err != nil {
			r.siege.end()
			return 0, err
		}
	}
}

// fill waits for datagrams. Only the end of the bind is an error: WireGuard would
// give up after a few others.
func (r *receiver) fill() error {
	for {
		r.siege.look()
		err := r.in.fill()
		select {
		case <-r.closed:
			return net.ErrClosed
		default:
		}
		switch {
		case err == nil:
			r.failures = 0
			return nil
		case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
			// Closed by its owner, or the wake-up of a Close that is over.
			return net.ErrClosed
		case refusal(err):
			r.b.event(Refused)
			continue
		}
		// A passing failure, such as a lack of memory.
		r.failures = min(r.failures+1, 20)
		select {
		case <-r.closed:
			return net.ErrClosed
		case <-time.After(time.Duration(r.failures) * 10 * time.Millisecond):
		}
	}
}

// refusal says whether the network told us that our datagrams do not arrive.
func refusal(err error) bool {
	for _, no := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES, syscall.EPERM, syscall.EPROTO} {
		if errors.Is(err, no) {
			return true
		}
	}
	return false
}

// take writes the WireGuard message that d holds to dst and gives its size, 0
// where there is none for WireGuard.
func (r *receiver) take(dst, d []byte, from *Endpoint) int {
	p := r.s.params
	for kind := obfs.Initiation; ; {
		sight := p.Look(d, kind)
		if sight.Kind == obfs.None {
			r.b.stats.Unknown.Add(1)
			if len(d) != r.b.o.StraySize { // of that size they pass the wall
				r.siege.rejected()
			}
			if r.b.o.Stray != nil {
				r.b.o.Stray(d, from)
			}
			return 0
		}
		msg := p.Message(d, sight)
		switch sight.Kind {
		case obfs.Transport:
			if !r.b.ours.has(obfs.Sender(msg)) {
				r.b.stats.Homeless.Add(1) // the wall would pass it
				return 0
			}
			n := copy(dst, msg)
			obfs.SetType(dst, 4)
			if !r.b.gotData.Load() && !r.b.gotData.Swap(true) {
				r.b.event(GotData)
			}
			return n
		case obfs.Initiation:
			if r.mac.Check(msg) {
				r.b.gate.Load().offer(msg, from)
				return 0
			}
		case obfs.Response:
			if r.mac.Check(msg) {
				return r.response(dst, msg)
			}
		case obfs.Cookie:
			if r.b.cookie(msg) {
				return 0
			}
		}
		// By chance it looked like one; a data packet may have the same length.
		r.b.stats.Forged.Add(1)
		p.Uncover(d, sight)
		kind = sight.Kind + 1
	}
}

// response makes a response WireGuard's, unless it answers nothing that is asked still.
func (r *receiver) response(dst, msg []byte) int {
	if !r.b.sent.newest(obfs.Receiver(msg)) {
		return 0
	}
	r.b.event(GotResponse)
	n := copy(dst, msg)
	obfs.SetType(dst, 2)
	r.mac.Sign(dst[:n])
	return n
}

// cookie takes a cookie reply and repeats the initiation that it answers, with the
// cookie: WireGuard itself would wait five seconds.
func (b *Bind) cookie(reply []byte) bool {
	i, ok := b.sent.cookie(reply)
	if !ok {
		return false
	}
	b.event(GotCookie)
	if !i.again {
		// What fails is repeated by WireGuard.
		_ = b.initiate(i.peer, i.msg[:], i.to)
	}
	return true
}
