package bind

import (
	"io"
	"net/netip"
	"testing"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
)

func BenchmarkBulk(b *testing.B) {
	for _, name := range []string{"plain", "2.0", "3.0"} {
		p := variants()[name]
		b.Run(name, func(b *testing.B) {
			server, client := benchPair(b, p)
			ln, err := server.net.Listen(443, 16)
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			c, err := client.net.Dial(b.Context(), netip.AddrPortFrom(serverAddr, 443))
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			s, err := ln.Accept()
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			const size = 64 << 10
			b.Run("echo", func(b *testing.B) {
				go func() {
					buf := make([]byte, 64)
					for {
						if _, err := io.ReadFull(s, buf); err != nil || buf[0] != 0 {
							return
						}
						if _, err := s.Write(buf); err != nil {
							return
						}
					}
				}()
				buf := make([]byte, 64)
				defer func() {
					_, _ = c.Write([]byte{63: 0, 0: 1})
				}()
				for b.Loop() {
					if _, err := c.Write(buf); err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(c, buf); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("bulk", func(b *testing.B) {
				b.SetBytes(size)
				// What is on its way at the end is the same each time.
				go func() { _, _ = io.Copy(io.Discard, struct{ io.Reader }{s}) }()
				buf := make([]byte, size)
				for b.Loop() {
					if _, err := c.Write(buf); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func benchPair(t testing.TB, p *obfs.Params) (server, client *node) {
	sk, ck := draw(t), draw(t)
	server = start(t, nodeOptions{keys: sk, addr: serverAddr, params: p, guard: guards(ck.public)})
	server.peer(t, ck.public, clientAddr, "")
	client = start(t, nodeOptions{keys: ck, addr: clientAddr, params: p, guard: guards(sk.public)})
	client.peer(t, sk.public, serverAddr, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.port).String())
	return server, client
}
