package masque

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
	"github.com/quic-go/quic-go/quicvarint"
)

// flow carries UDP payloads over one CONNECT-UDP stream: as QUIC datagrams where
// both ends have them, else as capsules. Whatever comes in either form is taken.
//
// Capsules arrive whole and in order and fill packets, and several go out with one
// write; QUIC datagrams may be lost, and quic-go loses them in bursts: its queues
// hold 32 (see backlog) and 128.
type flow struct {
	body io.Reader
	out  io.Writer
	// quic is nil where there are only capsules.
	quic datagrammer
	// conn is where it sends them: http3's way copies each once more.
	conn *quic.Conn
	// queue is where its datagrams wait; nil where they are not counted.
	queue *backlog
	// capsules says which form goes out. A server answers in the form that came last.
	capsules atomic.Bool
	server   bool

	// cut ends the stream in both directions, and with abort also a write that is stuck.
	cut     func(abort bool)
	stopped sync.Once

	writing sync.Mutex
	buf     []byte
	large   *sync.Pool // of *[]byte, for several capsules; an idle flow holds none
}

// newFlow makes a flow; large is shared by flows.
func newFlow(body io.Reader, out io.Writer, cut func(abort bool), large *sync.Pool) *flow {
	return &flow{body: body, out: out, cut: cut, large: large}
}

// newFlowH3 makes a flow over HTTP/3.
func newFlowH3(str h3Stream, large *sync.Pool) *flow {
	return newFlow(str, str, func(abort bool) {
		str.CancelRead(codeNone)
		if abort {
			str.CancelWrite(codeCancelled)
		} else {
			_ = str.Close()
		}
	}, large)
}

// stop ends run and send, also a send that waits for a peer who does not read.
func (f *flow) stop() {
	f.stopped.Do(func() {
		idle := f.writing.TryLock()
		if idle {
			defer f.writing.Unlock()
		}
		f.cut(!idle)
	})
}

// datagrammer is what http3.Stream and http3.RequestStream have for datagrams.
type datagrammer interface {
	Context() context.Context // ends with the sending side
	ReceiveDatagram(context.Context) ([]byte, error)
	StreamID() quic.StreamID
	QlogTrace() qlogwriter.Trace
}

// datagrams makes the flow take and send QUIC datagrams of its stream.
func (f *flow) datagrams(c *quic.Conn, str datagrammer) {
	f.conn, f.quic, f.queue = c, str, backlogOf(str)
}

// send sends payloads of one size that lie one behind the other; the last may be
// smaller, and size 0 is one payload. It blocks while the peer's connection is busy;
// what is too large for it is dropped, as a network would.
func (f *flow) send(b []byte, size int) error {
	if size <= 0 || size > len(b) {
		size = len(b)
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.quic == nil || f.capsules.Load() {
		return f.asCapsules(b, size)
	}
	if err := context.Cause(f.quic.Context()); err != nil {
		return err
	}
	for more := true; more; more = len(b) > 0 {
		one := b[:min(size, len(b))]
		b = b[len(one):]
		// RFC 9297 section 2.1: the stream's id, divided by four, and the HTTP datagram.
		f.buf = appendDatagram(quicvarint.Append(f.buf[:0], uint64(f.quic.StreamID()/4)), one)
		err := f.conn.SendDatagram(f.buf)
		var large *quic.DatagramTooLargeError
		if err != nil && !errors.As(err, &large) {
			return err
		}
	}
	return nil
}

func (f *flow) asCapsules(b []byte, size int) error {
	buf, _ := f.large.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer f.large.Put(buf)
	// A capsule's head has 4 bytes at most.
	*buf = slices.Grow((*buf)[:0], len(b)+8*(len(b)/max(size, 1)+1))
	for more := true; more; more = len(b) > 0 {
		one := b[:min(size, len(b))]
		b = b[len(one):]
		*buf = appendCapsule(*buf, one)
	}
	_, err := f.out.Write(*buf)
	return err
}

// run gives every payload that comes to deliver, which must not keep it, until the stream
// ends. deliver is called by two goroutines at most.
func (f *flow) run(deliver func([]byte)) error {
	ctx, cancel := context.WithCancel(context.Background())
	var reader sync.WaitGroup
	defer reader.Wait()
	defer cancel()
	if f.quic != nil {
		var in *waiting
		if f.queue != nil {
			in = f.queue.watch(f.quic.StreamID())
			defer f.queue.forget(f.quic.StreamID())
		}
		reader.Go(func() {
			for {
				b, err := f.quic.ReceiveDatagram(ctx)
				if err != nil {
					return
				}
				in.taken()
				// A malformed one is dropped: its stream is not worth less for it.
				if payload, ok, _ := parseDatagram(b); ok {
					f.came(false)
					deliver(payload)
				}
			}
		})
	}
	c := newCapsules(f.body)
	for {
		payload, err := c.next()
		if err != nil {
			return err
		}
		f.came(true)
		deliver(payload)
	}
}

// came notes the form of what came.
func (f *flow) came(capsule bool) {
	if f.server && f.capsules.Load() != capsule {
		f.capsules.Store(capsule)
	}
}
