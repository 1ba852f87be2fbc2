package webtest

import (
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

// Transport is what the tests that all web transports share need of one.
type Transport struct {
	// Web makes the server half for a site: its path, cookie, verifier and [Cover].
	Web func(*Site) transport.Web
	// Dialer is the client half.
	Dialer transport.Dialer
}

// Start serves the transport until the test ends, see [Start].
func (x Transport) Start(t testing.TB, accept func(net.Conn), protocols ...string) *Site {
	t.Helper()
	return Start(t, func(s *Site) http.Handler { return Mount(x.Web(s), accept) }, protocols...)
}

// Conformance runs the suite once over each of the protocols.
func (x Transport) Conformance(t *testing.T, protocols ...string) {
	for _, proto := range protocols {
		t.Run(proto, func(t *testing.T) {
			plugintest.Transport(t, plugintest.TransportPair{
				Name: x.Dialer.Name(),
				Start: func(t testing.TB, accept func(net.Conn)) func(context.Context) (net.Conn, error) {
					return x.Start(t, accept, proto).Dialer(x.Dialer)
				},
			})
		})
	}
}

// Open draws the stream part of a token that opens a stream.
func Open() string {
	st := entry.Stream{Op: entry.OpOpen}
	_, _ = rand.Read(st.ID[:])
	return st.String()
}

// BenchmarkEcho measures the way there and back of size bytes.
func (x Transport) BenchmarkEcho(b *testing.B, size int) {
	site := x.Start(b, func(c net.Conn) { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) })
	c := x.dial(b, site)
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
}

// BenchmarkUp measures one way: the client writes pieces of 4 KiB as fast as the relay
// reads.
func (x Transport) BenchmarkUp(b *testing.B) {
	done := make(chan struct{}, 1)
	site := x.Start(b, func(c net.Conn) {
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{c})
		done <- struct{}{}
	})
	c := x.dial(b, site)
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

// BenchmarkDown measures the other way.
func (x Transport) BenchmarkDown(b *testing.B) {
	site := x.Start(b, func(c net.Conn) {
		p := make([]byte, 4<<10)
		for {
			if _, err := c.Write(p); err != nil {
				return
			}
		}
	})
	c := x.dial(b, site)
	defer c.Close()
	p := make([]byte, 4<<10)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := io.ReadFull(c, p); err != nil {
			b.Fatal(err)
		}
	}
}

func (x Transport) dial(b *testing.B, site *Site) net.Conn {
	b.Helper()
	c, err := site.Dialer(x.Dialer)(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return c
}
