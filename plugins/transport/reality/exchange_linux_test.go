package reality

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"
)

// told is a cover whose reset a write hears of before a read: the kernel tells it once.
type told struct {
	*net.TCPConn
	once sync.Once
	met  chan struct{}
}

func (c *told) Write(p []byte) (int, error) {
	for {
		if _, err := c.TCPConn.Write(p); err != nil {
			c.once.Do(func() { close(c.met) })
			return 0, err
		}
	}
}

func (c *told) Read(p []byte) (int, error) {
	<-c.met
	return c.TCPConn.Read(p)
}

func pairTCP(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialed, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	return dialed.(*net.TCPConn), accepted.(*net.TCPConn)
}

// TestBytesAfterTheEnd: a cover that has closed in order resets what comes later. The client
// sees the end first, as it would there.
func TestBytesAfterTheEnd(t *testing.T) {
	client, ours := pairTCP(t)
	cover, server := pairTCP(t)
	x := newExchange(ours, netip.Addr{}, func() {})
	if err := server.Close(); err != nil { // nothing unread in it: an orderly end
		t.Fatal(err)
	}
	// Its answer to late bytes is there before the end has been read.
	for !isClosed(cover) {
		_, _ = cover.Write([]byte("late"))
	}
	if !x.attach(cover) {
		t.Fatal("not attached")
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		x.up()
		x.finish()
	}()
	_ = client.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the client saw %v", err)
	}
	client.Close()
	<-over
}

// TestEndOfTheCover: a client meets the cover's end as the cover made it, also a reset
// that only a write heard of.
func TestEndOfTheCover(t *testing.T) {
	for name, resets := range map[string]bool{"reset": true, "end of stream": false} {
		t.Run(name, func(t *testing.T) {
			client, ours := pairTCP(t)
			cover, server := pairTCP(t)
			x := newExchange(ours, netip.Addr{}, func() {})
			var joined net.Conn = cover
			if resets {
				joined = &told{TCPConn: cover, met: make(chan struct{})}
				reset(server)
			} else if err := server.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if !x.attach(joined) {
				t.Fatal("not attached")
			}
			over := make(chan struct{})
			go func() {
				defer close(over)
				x.up()
				x.finish()
			}()
			if _, err := client.Write([]byte("no hello")); err != nil {
				t.Fatal(err)
			}
			_ = client.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := client.Read(make([]byte, 1)); errors.Is(err, syscall.ECONNRESET) != resets {
				t.Errorf("the client saw %v", err)
			}
			client.Close()
			<-over
		})
	}
}
