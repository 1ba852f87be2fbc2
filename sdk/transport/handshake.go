package transport

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Handshaker is implemented by accepted conns that have a handshake to finish, as
// *tls.Conn is.
type Handshaker interface {
	HandshakeContext(ctx context.Context) error
}

// Limits of Handshakes.
const (
	// HandshakeTime is how long a handshake may take.
	HandshakeTime = 10 * time.Second
	// MaxHandshakes is how many may be going on; one more ends the oldest.
	MaxHandshakes = 1024
)

// Handshakes wraps a listener so that Accept gives only conns whose handshake is
// finished, and waits for none: handshakes run beside, each for at most
// HandshakeTime; one that fails closes its conn. Errors of Accept that are not
// net.ErrClosed are retried after a short pause. Close ends the handshakes that are
// going on and leaves accepted conns alone.
func Handshakes(ln net.Listener) net.Listener {
	h := &handshakes{Listener: ln, ready: make(chan net.Conn), pending: map[uint64]context.CancelFunc{}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.group.Go(h.loop)
	return h
}

type handshakes struct {
	net.Listener
	ready  chan net.Conn
	ctx    context.Context
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu           sync.Mutex
	pending      map[uint64]context.CancelFunc
	oldest, next uint64
	failed       error
}

// Accept implements net.Listener.
func (h *handshakes) Accept() (net.Conn, error) {
	select {
	case c := <-h.ready:
		return c, nil
	case <-h.ctx.Done():
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.failed != nil {
			return nil, h.failed
		}
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handshakes) Close() error {
	err := h.Listener.Close()
	h.cancel()
	h.group.Wait()
	return err
}

func (h *handshakes) loop() {
	defer h.cancel()
	pause := time.Duration(0)
	for {
		c, err := h.Listener.Accept()
		if err == nil {
			pause = 0
			h.start(c)
			continue
		}
		if errors.Is(err, net.ErrClosed) || h.ctx.Err() != nil {
			h.mu.Lock()
			h.failed = err
			h.mu.Unlock()
			return
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-h.ctx.Done():
			t.Stop()
		}
	}
}

func (h *handshakes) start(c net.Conn) {
	s, ok := c.(Handshaker)
	if !ok {
		h.give(h.ctx, c)
		return
	}
	ctx, cancel := context.WithTimeout(h.ctx, HandshakeTime)
	h.mu.Lock()
	id := h.next
	h.next++
	h.pending[id] = cancel
	for ; len(h.pending) > MaxHandshakes; h.oldest++ {
		if end, ok := h.pending[h.oldest]; ok {
			end()
			delete(h.pending, h.oldest)
		}
	}
	h.mu.Unlock()
	h.group.Go(func() {
		// A handshake that does not heed ctx ends with its conn.
		stop := context.AfterFunc(ctx, func() { c.Close() })
		err := s.HandshakeContext(ctx)
		if err == nil && stop() {
			h.give(ctx, c)
		} else {
			c.Close()
		}
		h.mu.Lock()
		delete(h.pending, id)
		h.mu.Unlock()
		cancel()
	})
}

func (h *handshakes) give(ctx context.Context, c net.Conn) {
	select {
	case h.ready <- c:
	case <-ctx.Done():
		c.Close()
	}
}
