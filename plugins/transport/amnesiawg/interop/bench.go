package interop

import (
	"encoding/binary"
	"io"
	"net"
	"testing"

	"github.com/commucat/commucat/plugins/transport/amnesiawg"
	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk/transport"
)

// chunk is how much one write or read of the bulk figures has.
const chunk = 64 << 10

// What a stream of the benchmark is asked for: a letter and a count of chunks.
const (
	askEcho = 'e' // messages of 64 bytes come back
	askUp   = 'u' // chunks are taken, and the last one is answered with a byte
	askDown = 'd' // chunks are sent
)

func serveBench(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			bench(c)
		}()
	}
}

func bench(c net.Conn) {
	var head [9]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return
	}
	n := int64(binary.BigEndian.Uint64(head[1:])) * chunk
	switch head[0] {
	case askEcho:
		b := make([]byte, 64)
		for {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	case askUp:
		if _, err := io.CopyN(io.Discard, struct{ io.Reader }{c}, n); err == nil {
			_, _ = c.Write(head[:1])
			_, _ = c.Read(head[:]) // until the other side has it
		}
	case askDown:
		b := make([]byte, chunk)
		for ; n > 0; n -= chunk {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
		_, _ = c.Read(head[:])
	}
}

// Bench measures what dial reaches: the round trip of 64 bytes, and bulk both ways.
func Bench(b *testing.B, dial func(testing.TB) net.Conn) {
	ask := func(b *testing.B, what byte) net.Conn {
		c := dial(b)
		var head [9]byte
		head[0] = what
		binary.BigEndian.PutUint64(head[1:], uint64(b.N))
		if _, err := c.Write(head[:]); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		return c
	}
	read := func(b *testing.B, c net.Conn, buf []byte) {
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
	write := func(b *testing.B, c net.Conn, buf []byte) {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	buf := make([]byte, chunk)
	b.Run("echo", func(b *testing.B) {
		c := ask(b, askEcho)
		for range b.N {
			write(b, c, buf[:64])
			read(b, c, buf[:64])
		}
		b.StopTimer()
		c.Close()
	})
	b.Run("up", func(b *testing.B) {
		c := ask(b, askUp)
		b.SetBytes(chunk)
		for range b.N {
			write(b, c, buf)
		}
		read(b, c, buf[:1])
		b.StopTimer()
		c.Close()
	})
	b.Run("down", func(b *testing.B) {
		c := ask(b, askDown)
		b.SetBytes(chunk)
		for range b.N {
			read(b, c, buf)
		}
		b.StopTimer()
		c.Close()
	})
}

// BenchDevices has two devices of one maker, each on the stock network stack.
func BenchDevices(b *testing.B, make Maker, wire *obfs.Params) {
	_, e, key := stand(b, make, wire, serveBench)
	text, err := amnesiawg.Export(e.Transport(), key)
	if err != nil {
		b.Fatal(err)
	}
	f, err := ParseFile(string(text))
	if err != nil {
		b.Fatal(err)
	}
	client := Start(b, make, f.Address.Addr(), f.Client())
	Bench(b, func(t testing.TB) net.Conn { return client.Dial(t, f) })
}

// BenchOurs has both halves of the transport.
func BenchOurs(b *testing.B, generation obfs.Generation) {
	s := listen(b, map[string]any{"generation": string(generation)}, serveBench)
	to, err := s.Invite(b.Context(), "127.0.0.1", transport.Guest{ID: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	o, err := transport.Open(b.Context(), amnesiawg.Plugin(), nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	Bench(b, func(t testing.TB) net.Conn {
		c, err := o.Dial(t.Context(), to, transport.Dial{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	})
}

// Draw makes parameters of a generation, WireGuard's own for "".
func Draw(g obfs.Generation) *obfs.Params {
	if g == "" {
		return obfs.Plain()
	}
	return obfs.Draw(g)
}
