package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// maxArriving bounds the streams whose header is being read; one more is closed.
const maxArriving = 512

// Header reads what stands before a stream, and not one byte more. Its time is bounded by
// a deadline on c. Who is refused by an error is closed.
type Header func(c net.Conn) (transport.Facts, error)

// Arrivals are the streams that the program connects to a listener of this process.
type Arrivals struct {
	ln     net.Listener
	header Header
	limit  time.Duration
	log    *slog.Logger

	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup
	accepted chan net.Conn
	slots    chan struct{}
}

// Receive takes streams from ln, which belongs to it from then on. header may last for
// limit.
func Receive(ln net.Listener, limit time.Duration, log *slog.Logger, header Header) *Arrivals {
	a := &Arrivals{ln: ln, header: header, limit: limit, log: log, accepted: make(chan net.Conn), slots: make(chan struct{}, maxArriving)}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.running.Go(a.loop)
	return a
}

func (a *Arrivals) loop() {
	for {
		c, err := a.ln.Accept()
		if err != nil {
			if a.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			select { // descriptors are short
			case <-time.After(100 * time.Millisecond):
			case <-a.ctx.Done():
				return
			}
			continue
		}
		select {
		case a.slots <- struct{}{}:
			a.running.Go(func() {
				defer func() { <-a.slots }()
				a.arrive(c)
			})
		default:
			c.Close()
		}
	}
}

// arrive gives one stream to Accept after its header.
func (a *Arrivals) arrive(c net.Conn) {
	stop := context.AfterFunc(a.ctx, func() { c.Close() })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(a.limit))
	facts, err := a.header(c)
	if err != nil {
		a.log.Debug("a stream was refused", slog.Any("error", err))
		c.Close()
		return
	}
	_ = c.SetDeadline(time.Time{})
	if !stop() {
		return
	}
	select {
	case a.accepted <- NewStream(c, facts):
	case <-a.ctx.Done():
		c.Close()
	}
}

// Accept gives the next stream, or net.ErrClosed.
func (a *Arrivals) Accept() (net.Conn, error) {
	select {
	case c := <-a.accepted:
		return c, nil
	case <-a.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Local is where the program connects to.
func (a *Arrivals) Local() net.Addr { return a.ln.Addr() }

// Close ends what has not been accepted, and returns when nothing runs any more.
func (a *Arrivals) Close() {
	a.cancel()
	_ = a.ln.Close()
	a.running.Wait()
}
