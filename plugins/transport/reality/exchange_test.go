package reality

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// swallowed is a cover whose reset is told to a write, as the kernel tells it once.
type swallowed struct {
	net.Conn
	met chan struct{}
}

func (c *swallowed) Write([]byte) (int, error) {
	close(c.met)
	return 0, &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.ECONNRESET)}
}

func (c *swallowed) Read([]byte) (int, error) {
	<-c.met
	return 0, io.EOF
}

func (c *swallowed) Close() error { return nil }

// TestResetToldToAWrite: the client meets a reset also where a write to the cover heard
// of it and the read saw an end of stream.
func TestResetToldToAWrite(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ours, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	x := newExchange(ours, netip.Addr{}, func() {})
	if !x.attach(&swallowed{met: make(chan struct{})}) {
		t.Fatal("not attached")
	}
	go func() {
		defer x.finish()
		x.up()
	}()
	if _, err := client.Write([]byte("no hello")); err != nil {
		t.Fatal(err)
	}
	_ = client.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client saw %v, want a reset", err)
	}
}
