package probe

import (
	"crypto/tls"
	"encoding/base64"
	"math/rand/v2"
)

// Kinds is the battery for these options, the same list in the same order each
// time.
func Kinds(opt Options) []Kind {
	var out []Kind
	out = append(out, rawKinds()...)
	out = append(out, helloKinds()...)
	out = append(out, shapeKinds()...)
	out = append(out, http1Kinds(opt)...)
	out = append(out, http2Kinds(opt)...)
	return out
}

func fixed(s string) func(*rand.Rand, Options) []byte {
	return func(*rand.Rand, Options) []byte { return []byte(s) }
}

// random gives n random bytes.
func random(n int) func(*rand.Rand, Options) []byte {
	return func(r *rand.Rand, _ Options) []byte { return bytesOf(r, n) }
}

func bytesOf(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// token has the shape of an entry token (36 bytes, base64url) and no key.
func token(r *rand.Rand) string {
	b := bytesOf(r, 36)
	copy(b, []byte{0x7f, 0xff, 0xff, 0x00}) // far from expired
	return base64.RawURLEncoding.EncodeToString(b)
}

// splitToken has the shape of a token with a stream part.
func splitToken(r *rand.Rand, op byte) string {
	st := append([]byte{op}, bytesOf(r, 16)...)
	st = append(st, make([]byte, 8)...)
	return token(r) + "." + base64.RawURLEncoding.EncodeToString(st)
}

// shapeKinds are whole handshakes with unusual parameters.
func shapeKinds() []Kind {
	get := func(_ *rand.Rand, opt Options) []byte {
		return []byte("GET / HTTP/1.1\r\nHost: " + opt.ServerName + "\r\nConnection: close\r\n\r\n")
	}
	shape := func(name string, f func(*tls.Config)) Kind {
		return Kind{Name: "tls " + name, on: http1, input: get, shape: f}
	}
	return []Kind{
		shape("1.2 only", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }),
		shape("1.0 only", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10 }),
		shape("no alpn", func(c *tls.Config) { c.NextProtos = nil }),
		shape("unknown alpn", func(c *tls.Config) { c.NextProtos = []string{"xmpp-client"} }),
		shape("http/1.0 alpn", func(c *tls.Config) { c.NextProtos = []string{"http/1.0"} }),
		shape("h3 and http/1.1", func(c *tls.Config) { c.NextProtos = []string{"h3", "http/1.1"} }),
		shape("other name", func(c *tls.Config) { c.ServerName = "www.example.org" }),
		shape("no name", func(c *tls.Config) { c.ServerName = "" }),
		shape("p-256 only", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }),
		shape("p-384 only", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP384} }),
		shape("hybrid only", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768} }),
		shape("x25519 only", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }),
		{Name: "tls then nothing", on: http1, input: fixed("")},
		{Name: "tls then end", on: http1, input: fixed(""), fin: true},
		{Name: "tls then random 1", on: http1, input: random(1), fin: true},
		{Name: "tls then random 64", on: http1, input: random(64)},
		{Name: "tls then random 4096", on: http1, input: random(4096)},
		{Name: "h2 then random 24", on: http2, input: random(24)},
		{Name: "h2 then random 512", on: http2, input: random(512)},
		{Name: "h2 then http/1.1", on: http2, input: get},
		{Name: "h2 then nothing", on: http2, input: fixed("")},
		{Name: "h2 then end", on: http2, input: fixed(""), fin: true},
	}
}
