package masque

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/commucat/commucat/sdk/transport"
)

// TestForgedAddresses: who forges the address of another gets half of its places, and
// half of all; the rest is for those who have shown that they are there.
func TestForgedAddresses(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	c := newCrowd(20, 8, func() time.Time { return at })
	ctx, end := context.WithCancel(t.Context())
	defer end()
	arrive := func(last byte, validated bool) bool {
		a := &net.UDPAddr{IP: net.IPv4(192, 0, 2, last), Port: 9}
		if !validated && c.suspicious(a) {
			return false
		}
		_, err := c.admit(ctx, &quic.ClientInfo{RemoteAddr: a, AddrVerified: validated})
		return err == nil
	}
	for _, step := range []struct {
		last      byte
		validated bool
		tries     int
		want      int
	}{
		{1, false, 20, 4}, {1, true, 20, 4}, // 8 of one source
		{2, false, 20, 2}, {3, false, 20, 0}, {2, true, 20, 6}, {3, true, 20, 4}, // 20 in all
	} {
		got := 0
		for range step.tries {
			if arrive(step.last, step.validated) {
				got++
			}
		}
		if got != step.want {
			t.Errorf("source %d, validated %v: %d got in, want %d", step.last, step.validated, got, step.want)
		}
	}
}

// TestBoundedTCP: connections over TCP have bounds as well, and one that ends makes
// room.
func TestBoundedTCP(t *testing.T) {
	r := start(t, map[string]any{"source_connections": 2}, echo)
	at := transport.AddrPort(r.server.Addr()).String()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	_, second := dial(), dial()
	third := dial()
	_ = third.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := third.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a third connection: %v", err)
	}
	// What is no hello is answered and closed: then its place is free.
	if _, err := io.WriteString(second, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, second)
	inv, err := readInvitation(r.endpoint(t, "guest"), transport.Dial{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := (&dialer{to: r.endpoint(t, "guest"), inv: inv}).overTCP(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := works(c, "hello"); err != nil {
		t.Error(err)
	}
}
