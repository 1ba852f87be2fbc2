package websocket_test

import (
	"io"
	"net"
	"strconv"
	"testing"

	"github.com/commucat/commucat/transports/websocket"
)

func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{256, 64 << 10} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			site := start(b, func(c net.Conn) { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) })
			c, err := site.Dialer(websocket.NewDialer())(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = c.Write(p)
				if _, err := io.ReadFull(c, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// One way: the client writes pieces of 4 KiB as fast as the relay reads.
func BenchmarkUp(b *testing.B) {
	done := make(chan struct{}, 1)
	site := start(b, func(c net.Conn) {
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{c})
		done <- struct{}{}
	})
	c, err := site.Dialer(websocket.NewDialer())(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 4<<10)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
	}
	_ = c.Close()
	<-done
}

// One way down.
func BenchmarkDown(b *testing.B) {
	site := start(b, func(c net.Conn) {
		p := make([]byte, 4<<10)
		for {
			if _, err := c.Write(p); err != nil {
				return
			}
		}
	})
	c, err := site.Dialer(websocket.NewDialer())(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	p := make([]byte, 4<<10)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := io.ReadFull(c, p); err != nil {
			b.Fatal(err)
		}
	}
}
