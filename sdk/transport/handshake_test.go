package transport_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// queue is a listener whose conns are put in by the test.
type queue struct {
	conns  chan any
	closed chan struct{}
}

func newQueue() *queue { return &queue{make(chan any), make(chan struct{})} }

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		if err, ok := c.(error); ok {
			return nil, err
		}
		return c.(net.Conn), nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error   { close(q.closed); return nil }
func (q *queue) Addr() net.Addr { return transport.Addr{Net: "queue", Text: "queue"} }

// slow is a conn whose handshake ends when it is told to, or with its context.
type slow struct {
	net.Conn
	finish chan error
	closed chan struct{}
	once   sync.Once
}

func newSlow() *slow {
	return &slow{finish: make(chan error, 1), closed: make(chan struct{})}
}

func (s *slow) HandshakeContext(ctx context.Context) error {
	select {
	case err := <-s.finish:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slow) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func isClosed(s *slow) bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

func TestHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		ln := transport.Handshakes(q)
		bad, late, good, quick := newSlow(), newSlow(), newSlow(), newSlow()
		for _, c := range []any{bad, late, errors.New("out of descriptors"), good, quick} {
			q.conns <- c
		}
		quick.finish <- nil
		if c, err := ln.Accept(); c != net.Conn(quick) || err != nil {
			t.Fatal("the quick one waits for the slow ones", err)
		}
		bad.finish <- errors.New("no")
		time.Sleep(transport.HandshakeTime - time.Second)
		good.finish <- nil
		if c, err := ln.Accept(); c != net.Conn(good) || err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !isClosed(bad) || !isClosed(late) || isClosed(good) || isClosed(quick) {
			t.Error(isClosed(bad), isClosed(late), isClosed(good), isClosed(quick))
		}
		pending, unclaimed := newSlow(), newSlow()
		q.conns <- pending
		q.conns <- unclaimed
		unclaimed.finish <- nil
		synctest.Wait()
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		if !isClosed(pending) || !isClosed(unclaimed) {
			t.Error("left open", isClosed(pending), isClosed(unclaimed))
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

func TestHandshakesDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		ln := transport.Handshakes(q)
		begun := newSlow()
		q.conns <- begun
		if err := ln.Drain(); err != nil {
			t.Error(err)
		}
		begun.finish <- nil
		if c, err := ln.Accept(); c != net.Conn(begun) || err != nil {
			t.Error("a handshake that had begun was lost", err)
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}

func TestHandshakesOldestGives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		ln := transport.Handshakes(q)
		defer ln.Close()
		conns := make([]*slow, transport.MaxHandshakes+3)
		for i := range conns {
			conns[i] = newSlow()
			q.conns <- conns[i]
		}
		synctest.Wait()
		for i, c := range conns {
			if isClosed(c) != (i < 3) {
				t.Fatalf("conn %d: closed is %v", i, isClosed(c))
			}
		}
	})
}

type halfConn struct{ net.Conn }

func (halfConn) CloseWrite() error { return nil }

func TestAttach(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	c := transport.Attach(a, transport.Facts{Circuit: "7", Hidden: true})
	if f := transport.FactsOf(c); f.Circuit != "7" || !f.Hidden {
		t.Errorf("%+v", f)
	}
	if c.Attached() != a {
		t.Error("another conn")
	}
	if err := transport.CloseWrite(c); !errors.Is(err, errors.ErrUnsupported) {
		t.Error("a pipe has no half-close", err)
	}
	if err := transport.CloseWrite(transport.Attach(halfConn{a}, transport.Facts{})); err != nil {
		t.Error(err)
	}
}
