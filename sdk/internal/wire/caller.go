package wire

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
)

// queued is how many requests wait for the connection before callers do.
const queued = 64

// Caller sends the calls of one Work stream and waits for their answers. Any number
// of calls may be under way. A stream that broke is opened again by the next call.
type Caller struct {
	// Open opens a stream that ends with ctx.
	Open func(ctx context.Context) (grpc.BidiStreamingClient[wirepb.StorageRequest, wirepb.StorageReply], error)
	// Begin is its first request.
	Begin *wirepb.Begin
	// Gone explains an error of a call: why the process does not answer.
	Gone func(ctx context.Context, err error) error

	mu     sync.Mutex
	work   *work
	closed bool
	group  sync.WaitGroup
}

// work is one stream.
type work struct {
	cancel context.CancelFunc
	out    chan *wirepb.StorageRequest
	broken chan struct{}
	err    error // before broken is closed

	mu        sync.Mutex
	last      uint64
	pending   map[uint64]*pending
	abandoned []uint64
	wake      chan struct{}
}

// pending is a call without its answer.
type pending struct {
	take  func(*wirepb.StorageReply) error
	err   error
	bytes int
	done  chan struct{}
}

// Close ends the stream; calls that wait end with sdk.Closed.
func (c *Caller) Close() {
	c.mu.Lock()
	c.closed = true
	if c.work != nil {
		c.work.cancel()
	}
	c.mu.Unlock()
	c.group.Wait()
}

var errClosed = &sdk.Error{Kind: sdk.Closed, Text: "the store is closed"}

// Call sends the requests of a call and gives each reply to take, on the stream's
// goroutine; take must keep nothing once Call has returned. The answer is the
// plugin's error, take's, ctx's, or of kind sdk.Unavailable: nothing is known of the
// call.
func (c *Caller) Call(ctx context.Context, requests []*wirepb.StorageRequest, take func(*wirepb.StorageReply) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w, err := c.get()
	if err != nil {
		return c.Gone(ctx, err)
	}
	p := &pending{take: take, done: make(chan struct{})}
	w.mu.Lock()
	w.last++
	id := w.last
	w.pending[id] = p
	w.mu.Unlock()
	for i, r := range requests {
		r.Id, r.More = id, i < len(requests)-1
		select {
		case w.out <- r:
		case <-ctx.Done():
			return w.abandon(id, p, ctx.Err())
		case <-w.broken:
			return c.fail(ctx, w, id, p)
		}
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return w.abandon(id, p, ctx.Err())
	case <-w.broken:
		return c.fail(ctx, w, id, p)
	}
}

// fail ends a call of a broken stream; its answer may have come before.
func (c *Caller) fail(ctx context.Context, w *work, id uint64, p *pending) error {
	select {
	case <-p.done:
		return p.err
	default:
	}
	w.mu.Lock()
	delete(w.pending, id)
	w.mu.Unlock()
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return errClosed
	}
	var own *sdk.Error
	if errors.As(w.err, &own) {
		return own
	}
	return c.Gone(ctx, w.err)
}

// abandon gives a call up and tells the plugin.
func (w *work) abandon(id uint64, p *pending, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.pending[id]; !ok { // just answered; take is not running any more
		<-p.done
		return p.err
	}
	delete(w.pending, id)
	w.abandoned = append(w.abandoned, id)
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return err
}

func (c *Caller) get() (*work, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	if c.work != nil {
		select {
		case <-c.work.broken:
		default:
			return c.work, nil
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := c.Open(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	w := &work{
		cancel: cancel, out: make(chan *wirepb.StorageRequest, queued), broken: make(chan struct{}),
		pending: map[uint64]*pending{}, wake: make(chan struct{}, 1),
	}
	w.out <- &wirepb.StorageRequest{Begin: c.Begin}
	c.work = w
	c.group.Go(func() { w.send(ctx, stream) })
	c.group.Go(func() { w.receive(stream) })
	return w, nil
}

func (w *work) send(ctx context.Context, stream grpc.BidiStreamingClient[wirepb.StorageRequest, wirepb.StorageReply]) {
	for {
		var r *wirepb.StorageRequest
		select {
		case r = <-w.out:
		case <-w.wake:
			w.mu.Lock()
			ids := w.abandoned
			w.abandoned = nil
			w.mu.Unlock()
			for _, id := range ids {
				if stream.Send(&wirepb.StorageRequest{Id: id, Cancel: true}) != nil {
					return
				}
			}
			continue
		case <-ctx.Done():
			return
		}
		if stream.Send(r) != nil {
			return // receive learns why
		}
	}
}

func (w *work) receive(stream grpc.BidiStreamingClient[wirepb.StorageRequest, wirepb.StorageReply]) {
	for {
		r, err := stream.Recv()
		if err == nil {
			err = w.reply(r)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = &sdk.Error{Kind: sdk.Unavailable, Text: "the plugin ended the stream"}
			}
			w.err = err
			close(w.broken)
			w.cancel()
			return
		}
	}
}

// reply hands a reply to its call; an error breaks the stream.
func (w *work) reply(r *wirepb.StorageReply) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, ok := w.pending[r.Id]
	if !ok {
		return nil // given up
	}
	if p.bytes += proto.Size(r); p.bytes > MaxReply {
		return &sdk.Error{Kind: sdk.Invalid, Text: "an answer of the plugin is longer than is allowed"}
	}
	if p.err == nil {
		if p.err = ToError(r.Error); p.err == nil {
			p.err = p.take(r)
		}
	}
	if !r.More {
		delete(w.pending, r.Id)
		close(p.done)
	}
	return nil
}
