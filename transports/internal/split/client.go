package split

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/carrier"
)

const (
	// piece is the most bytes of one upstream request: on a link of 7 KiB/s it
	// arrives before the request is given up. It is halved by each request
	// that breaks, down to leastPiece, and doubled by each that does not.
	piece      = 128 << 10
	leastPiece = 2 << 10
	// requestLimit is how long a request that answers at once may take.
	requestLimit = 20 * time.Second
	// pollLimit is the same for a long-poll, above what the relay holds it.
	pollLimit = 45 * time.Second
	// silence is the longest pause of an event stream, above its comments.
	silence = 40 * time.Second
	// giveUp is how long requests may fail in a row: then the relay has
	// forgotten the stream.
	giveUp = 60 * time.Second
	// strangers is how many stranger's answers in a row end the stream. One
	// alone may be a request that the HTTP client repeated with its token.
	strangers = 3
	// linger is how long a closed stream may take for its last bytes.
	linger = 3 * time.Second
)

// errCut is an answer that broke off; the next request goes on from there.
var errCut = errors.New("split: the answer broke off")

// client is the client's end.
type client struct {
	end
	name    string
	events  bool
	id      [16]byte
	carrier *carrier.Client

	downLife context.Context // ends with Close
	downStop context.CancelFunc
	upLife   context.Context // ends when the last bytes are out
	upStop   context.CancelFunc

	downNext uint64 // bytes that have arrived; under end.mu

	// upLoop's own:
	told  bool // the relay knows our end of stream
	piece int  // bytes of the next upstream request
	ask   bool // a request broke: ask first how much of it arrived
}

// Dial opens a stream: an event stream if events is set, else by long-poll.
func Dial(ctx context.Context, name string, events bool, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	if with.Token == nil {
		return nil, fmt.Errorf("%s: a token is needed: %w", name, errors.ErrUnsupported)
	}
	c := &client{name: name, events: events}
	c.init(Ring)
	c.piece = piece
	if _, err := rand.Read(c.id[:]); err != nil {
		return nil, err
	}
	var err error
	if c.carrier, err = carrier.Dial(ctx, to, with); err != nil {
		return nil, err
	}
	c.downLife, c.downStop = context.WithCancel(context.WithoutCancel(ctx))
	c.upLife, c.upStop = context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, c.downStop)
	first, err := c.fetch(entry.OpOpen)
	if !stop() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		if first != nil {
			first.close()
		}
		c.downStop()
		c.upStop()
		c.carrier.Close()
		return nil, err
	}
	go c.downLoop(first)
	go c.upLoop()
	return c, nil
}

// retry paces requests that fail.
type retry struct {
	since  time.Time // of the first failure in a row
	pause  time.Duration
	covers int
}

func (t *retry) good() { *t = retry{} }

// bad waits before the next try; it returns an error if there is to be none.
func (t *retry) bad(ctx context.Context, err error) error {
	now := time.Now()
	if t.since.IsZero() {
		t.since = now
	}
	if errors.Is(err, transport.ErrRefused) {
		t.covers++
	}
	if t.covers >= strangers || now.Sub(t.since) > giveUp {
		return err
	}
	if t.pause > 0 {
		timer := time.NewTimer(t.pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	t.pause = min(max(2*t.pause, 20*time.Millisecond), 2*time.Second)
	return ctx.Err()
}

// answer is the body of a fetch, with the watch that ends it.
type answer struct {
	status int
	kind   string
	body   io.ReadCloser
	cancel context.CancelFunc
	watch  *time.Timer
}

func (a *answer) close() {
	a.watch.Stop()
	a.cancel()
	_ = a.body.Close()
}

// Read reads the body and puts the watch off.
func (a *answer) Read(p []byte) (int, error) {
	n, err := a.body.Read(p)
	if n > 0 {
		a.watch.Reset(silence)
	}
	return n, err
}

// fetch asks for downstream bytes.
func (c *client) fetch(op entry.Op) (*answer, error) {
	ctx, cancel := context.WithCancel(c.downLife)
	a := &answer{cancel: cancel}
	limit := pollLimit
	if c.events {
		limit = requestLimit
	}
	a.watch = time.AfterFunc(limit, cancel)
	st := entry.Stream{Op: op, ID: c.id, Offset: c.arrived()}
	r := c.carrier.Request(ctx, http.MethodGet, st.String(), nil)
	if c.events {
		r.Header.Set("Accept", "text/event-stream")
	} else {
		r.Header.Set("Accept", "*/*")
	}
	resp, err := c.carrier.RoundTrip(r) //nolint:bodyclose // the stream's reader closes it
	if err != nil {
		a.watch.Stop()
		cancel()
		if c.downLife.Err() == nil && ctx.Err() != nil {
			c.carrier.Drop() // nothing came for too long
		}
		return nil, err
	}
	a.status, a.kind, a.body = resp.StatusCode, resp.Header.Get("Content-Type"), resp.Body
	a.watch.Reset(silence)
	if !c.ours(a) {
		a.close()
		return nil, fmt.Errorf("%s: status %d: %w", c.name, a.status, transport.ErrRefused)
	}
	return a, nil
}

// ours says whether an answer is the relay's and not the cover's.
func (c *client) ours(a *answer) bool {
	switch {
	case c.events:
		return a.status == http.StatusOK && a.kind == "text/event-stream"
	case a.status == http.StatusNoContent:
		return true
	default:
		return a.status == http.StatusOK && a.kind == "application/octet-stream"
	}
}

func (c *client) arrived() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.downNext
}

// downLoop fetches until the relay's end of stream.
func (c *client) downLoop(a *answer) {
	defer c.downStop()
	var again retry
	for {
		before := c.arrived()
		over, err := c.consume(a)
		a.close()
		if over {
			c.finishDown(nil)
			return
		}
		if err == nil || c.arrived() != before {
			again.good()
		} else if err = again.bad(c.downLife, err); err != nil {
			c.finishDown(err)
			return
		}
		for a = nil; a == nil; {
			if a, err = c.fetch(entry.OpDown); err != nil {
				if err = again.bad(c.downLife, err); err != nil {
					c.finishDown(err)
					return
				}
			}
		}
	}
}

func (c *client) finishDown(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed: // upLoop still sends what is left
	case err == nil:
		c.inEOF = true
	default:
		if c.err == nil {
			c.err = err
		}
		c.upStop()
	}
	c.change.Broadcast()
}

// consume takes what one answer brings; over is the relay's end of stream.
func (c *client) consume(a *answer) (over bool, err error) {
	if c.events {
		return c.consumeEvents(a)
	}
	if a.status == http.StatusNoContent {
		return false, nil
	}
	defer context.AfterFunc(c.downLife, c.wake)()
	buf := make([]byte, 16<<10)
	for total := 0; ; {
		n, err := a.Read(buf)
		total += n
		if !c.arrive(buf[:n]) {
			return false, net.ErrClosed
		}
		if err == io.EOF {
			return total == 0, nil
		}
		if err != nil {
			return false, errors.Join(errCut, err)
		}
	}
}

func (c *client) consumeEvents(a *answer) (over bool, err error) {
	defer context.AfterFunc(c.downLife, c.wake)()
	d := newDecoder(a)
	for {
		e, err := d.next()
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, errors.Join(errCut, err)
		}
		next := c.arrived()
		if e.name == "end" && e.offset == next {
			return true, nil
		}
		start := e.offset - uint64(len(e.data))
		if uint64(len(e.data)) > e.offset || start > next {
			return false, errCut
		}
		if e.offset <= next {
			continue
		}
		if !c.arrive(e.data[next-start:]) {
			return false, net.ErrClosed
		}
	}
}

// arrive queues bytes for Read and waits while there is no room.
func (c *client) arrive(p []byte) bool {
	return c.put(p, func() bool { return c.downLife.Err() == nil }, &c.downNext) == len(p)
}

// upLoop sends what is written, and at last the end of stream.
func (c *client) upLoop() {
	defer c.carrier.Close()
	defer c.downStop()
	defer c.upStop()
	defer context.AfterFunc(c.upLife, c.wake)()
	var again retry
	for {
		op, offset, data, more := c.pending()
		if !more {
			return
		}
		err := c.send(op, offset, data)
		if err == nil {
			again.good()
			c.ask = false
			if len(data) > 0 {
				c.piece = min(2*c.piece, piece)
			}
			continue
		}
		if len(data) > 0 {
			c.ask, c.piece = true, max(c.piece/2, leastPiece)
		}
		if err = again.bad(c.upLife, err); err != nil {
			c.fail(err)
			c.downStop()
			return
		}
	}
}

// pending waits for something to send.
func (c *client) pending() (op entry.Op, offset uint64, data []byte, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.upLife.Err() != nil:
			return 0, 0, nil, false
		case len(c.out) > 0 && c.ask:
			return entry.OpUp, c.outBase, nil, true
		case len(c.out) > 0:
			return entry.OpUp, c.outBase, append([]byte(nil), c.out[:min(len(c.out), c.piece)]...), true
		case c.closed:
			return entry.OpClose, entry.Abandon, nil, true
		case c.outEOF && !c.told:
			return entry.OpClose, c.outBase, nil, true
		}
		c.change.Wait()
	}
}

// send makes one upstream request.
func (c *client) send(op entry.Op, offset uint64, data []byte) error {
	ctx, cancel := context.WithTimeout(c.upLife, requestLimit)
	defer cancel()
	st := entry.Stream{Op: op, ID: c.id, Offset: offset}
	r := c.carrier.Request(ctx, http.MethodPost, st.String(), body(data))
	r.ContentLength = int64(len(data))
	resp, err := c.carrier.RoundTrip(r)
	if err != nil {
		if c.upLife.Err() == nil && ctx.Err() != nil {
			c.carrier.Drop()
		}
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	if err != nil {
		return err
	}
	if op == entry.OpClose && resp.StatusCode == http.StatusNoContent {
		c.told = true
		if offset == entry.Abandon {
			c.upStop()
		}
		return nil
	}
	next, err := strconv.ParseUint(string(text), 10, 64)
	status := resp.StatusCode
	known := status == http.StatusOK && op == entry.OpUp || status == http.StatusConflict || status == http.StatusRequestEntityTooLarge
	if err != nil || !known || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		return fmt.Errorf("%s: status %d: %w", c.name, status, transport.ErrRefused)
	}
	return c.acknowledge(next, offset, len(data))
}

// acknowledge frees what the relay has.
func (c *client) acknowledge(next, before uint64, sent int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ack(next) {
		return fmt.Errorf("%s: the relay expects byte %d: %w", c.name, next, transport.ErrRefused)
	}
	if next == before && sent > 0 {
		return errCut // nothing was taken: do not spin
	}
	return nil
}

// Close wakes every call. In the background, and for at most three seconds,
// what was written is still sent and the stream is closed at the relay.
func (c *client) Close() error {
	if !c.close() {
		return nil
	}
	c.downStop()
	timer := time.AfterFunc(linger, c.upStop)
	context.AfterFunc(c.upLife, func() { timer.Stop() })
	return nil
}

// LocalAddr is the address of the newest connection's socket.
func (c *client) LocalAddr() net.Addr { return c.carrier.Conn().LocalAddr() }

// RemoteAddr is the address of the newest connection's peer.
func (c *client) RemoteAddr() net.Addr { return c.carrier.Conn().RemoteAddr() }
