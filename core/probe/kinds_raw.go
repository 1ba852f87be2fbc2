package probe

import (
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"
)

// rawKinds speak something else than TLS to the port.
func rawKinds() []Kind {
	text := map[string]string{
		"http get":         "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"http post":        "POST /connect HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd",
		"http/1.0":         "GET / HTTP/1.0\r\n\r\n",
		"http connect":     "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n",
		"h2 preface":       preface,
		"ssh":              "SSH-2.0-OpenSSH_9.6\r\n",
		"smtp":             "EHLO mail.example.org\r\n",
		"ftp":              "USER anonymous\r\n",
		"imap":             "a1 CAPABILITY\r\n",
		"redis":            "*1\r\n$4\r\nPING\r\n",
		"memcached":        "stats\r\n",
		"proxy v1":         "PROXY TCP4 1.2.3.4 5.6.7.8 1111 443\r\n",
		"proxy v2":         "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x04\x57\x01\xbb",
		"socks4":           "\x04\x01\x01\xbb\x01\x02\x03\x04\x00",
		"socks5":           "\x05\x01\x00",
		"rdp":              "\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
		"smb":              "\x00\x00\x00\x2f\xffSMB\x72\x00\x00\x00\x00\x08\x01\xc8",
		"stun":             "\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl",
		"dns over tcp":     "\x00\x1d\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01",
		"bittorrent":       "\x13BitTorrent protocol\x00\x00\x00\x00\x00\x00\x00\x00",
		"openvpn":          "\x00\x0e\x38\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x00\x00",
		"mtproto":          "\xef\x01abcdefgh",
		"help":             "HELP\r\n\r\n",
		"line ends":        "\r\n\r\n",
		"zeros":            strings.Repeat("\x00", 64),
		"tls alert":        "\x15\x03\x03\x00\x02\x01\x00",
		"tls data first":   "\x17\x03\x03\x00\x10abcdefghijklmnop",
		"tls heartbeat":    "\x18\x03\x03\x00\x03\x01\x40\x00",
		"tls ccs":          strings.Repeat("\x14\x03\x03\x00\x01\x01", 20),
		"tls long record":  "\x16\x03\x01\xff\xff\x01\x00\xff\xfb",
		"tls empty record": "\x16\x03\x01\x00\x00",
		"tls ssl2 hello":   "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80\x02\x00\x80\x03\x00\x80\x04\x00\x80\x05\x00\x80\x06\x00\x40abcdefghijkl",
		"tls bad version":  "\x16\x09\x09\x00\x05\x01\x00\x00\x01\x00",
		"dtls hello":       "\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x01\x00\x00\x04abcdabcdabcd",
	}
	out := []Kind{
		{Name: "tcp silence", input: fixed("")},
		{Name: "tcp end", input: fixed(""), fin: true},
	}
	for _, name := range sortedKeys(text) {
		out = append(out, Kind{Name: "tcp " + name, input: fixed(text[name])})
		out = append(out, Kind{Name: "tcp " + name + " and end", input: fixed(text[name]), fin: true})
	}
	for _, n := range []int{1, 2, 3, 5, 16, 48, 64, 100, 256, 517, 1024, 1500, 4096} {
		out = append(out, Kind{Name: fmt.Sprintf("tcp random %d", n), input: random(n), parts: true})
	}
	return append(out, Kind{Name: "tcp random length", fin: true, input: func(r *rand.Rand, _ Options) []byte {
		return bytesOf(r, 1+r.IntN(4096))
	}})
}

// helloKinds are ClientHellos, whole, cut and damaged, without the rest.
func helloKinds() []Kind {
	hello := func(name string, change func(r *rand.Rand, b []byte) []byte) Kind {
		return Kind{Name: "hello " + name, input: func(r *rand.Rand, opt Options) []byte {
			return change(r, clientHello(r, opt))
		}}
	}
	out := []Kind{
		hello("alone", func(_ *rand.Rand, b []byte) []byte { return b }),
		hello("twice", func(_ *rand.Rand, b []byte) []byte { return append(b, b...) }),
		hello("and junk", func(r *rand.Rand, b []byte) []byte { return append(b, bytesOf(r, 200)...) }),
		hello("and alert", func(_ *rand.Rand, b []byte) []byte { return append(b, "\x15\x03\x03\x00\x02\x02\x28"...) }),
		hello("and data", func(r *rand.Rand, b []byte) []byte {
			return append(append(b, "\x17\x03\x03\x00\x40"...), bytesOf(r, 64)...)
		}),
		hello("in small records", func(_ *rand.Rand, b []byte) []byte {
			var out []byte
			for body := b[5:]; len(body) > 0; {
				n := min(len(body), 50)
				out = append(append(out, 0x16, 3, 1, 0, byte(n)), body[:n]...)
				body = body[n:]
			}
			return out
		}),
		hello("long length", func(_ *rand.Rand, b []byte) []byte { b[6] = 0xff; return b }),
		hello("short length", func(_ *rand.Rand, b []byte) []byte { b[8]--; return b }),
		hello("other type", func(_ *rand.Rand, b []byte) []byte { b[5] = 2; return b }),
		hello("random part", func(r *rand.Rand, b []byte) []byte {
			i := r.IntN(len(b) - 40)
			copy(b[i:], bytesOf(r, 32))
			return b
		}),
	}
	for _, at := range []int{1, 4, 5, 6, 9, 20, 43, 80, 150, -1} {
		name := fmt.Sprintf("cut at %d", at)
		if at < 0 {
			name = "cut before the end"
		}
		cut := hello(name, func(_ *rand.Rand, b []byte) []byte {
			if at < 0 {
				return b[:len(b)-1]
			}
			return b[:at]
		})
		out = append(out, cut)
		cut.Name, cut.fin = cut.Name+" and end", true
		out = append(out, cut)
	}
	for i := range 8 {
		out = append(out, hello(fmt.Sprintf("bit %d turned", i), func(r *rand.Rand, b []byte) []byte {
			// Outside random, session and key share, so that the answer depends
			// on the place and not on the key.
			at := r.IntN(min(len(b), 43))
			b[at] ^= 1 << r.IntN(8)
			return b
		}))
	}
	return out
}

// clientHello records what this library's client sends first.
func clientHello(r *rand.Rand, opt Options) []byte {
	var c firstFlight
	_ = tls.Client(&c, &tls.Config{ // ends where it waits for the answer
		ServerName: opt.ServerName, InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"},
		CurvePreferences: []tls.CurveID{tls.X25519}, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13,
	}).Handshake()
	hello := c.sent
	if len(hello) > 43 { // random and session id repeat with the seed
		copy(hello[11:43], bytesOf(r, 32))
		if n := int(hello[43]); len(hello) > 44+n {
			copy(hello[44:44+n], bytesOf(r, n))
		}
	}
	return hello
}

// firstFlight keeps what is written, and ends at the first read.
type firstFlight struct {
	net.Conn
	sent []byte
}

func (c *firstFlight) Write(p []byte) (int, error) {
	c.sent = append(c.sent, p...)
	return len(p), nil
}

func (c *firstFlight) Read([]byte) (int, error) { return 0, io.EOF }

func (c *firstFlight) Close() error { return nil }

func (c *firstFlight) SetWriteDeadline(time.Time) error { return nil }
