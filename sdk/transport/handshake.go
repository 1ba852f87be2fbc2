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
// HandshakeTime; one that fails closes its conn. Errors of ln's Accept that are not
// net.ErrClosed are retried after a short pause. When ln is closed, the handshakes that
// are going on are still finished, and Accept answers net.ErrClosed behind the last.
func Handshakes(ln net.Listener) *Handshaking {
	h := &Handshaking{ln: ln, ready: make(chan net.Conn), pending: map[uint64]context.CancelFunc{}, over: make(chan struct{})}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.group.Go(h.loop)
	go func() {
		h.group.Wait()
		close(h.over)
	}()
	return h
}

// Handshaking is a net.Listener of conns that have finished their handshakes.
type Handshaking struct {
	ln     net.Listener
	ready  chan net.Conn
	ctx    context.Context
	cancel context.CancelFunc
	group  sync.WaitGroup
	over   chan struct{} // closed when nothing comes any more

	mu           sync.Mutex
	pending      map[uint64]context.CancelFunc
	oldest, next uint64
}

var _ net.Listener = (*Handshaking)(nil)

// Accept implements net.Listener.
func (h *Handshaking) Accept() (net.Conn, error) {
	select {
	case c := <-h.ready:
		return c, nil
	case <-h.over:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (h *Handshaking) Addr() net.Addr { return h.ln.Addr() }

// Drain closes the listener alone: conns whose handshake has begun are still
// accepted.
func (h *Handshaking) Drain() error { return h.ln.Close() }

// Close closes the listener and ends the handshakes that are going on. Accepted
// conns live on.
func (h *Handshaking) Close() error {
	err := h.ln.Close()
	h.cancel()
	<-h.over
	return err
}

func (h *Handshaking) loop() {
	pause := time.Duration(0)
	for {
		c, err := h.ln.Accept()
		if err == nil {
			pause = 0
			h.start(c)
			continue
		}
		if errors.Is(err, net.ErrClosed) || h.ctx.Err() != nil {
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

func (h *Handshaking) start(c net.Conn) {
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

func (h *Handshaking) give(ctx context.Context, c net.Conn) {
	select {
	case h.ready <- c:
	case <-ctx.Done():
		c.Close()
	}
}
