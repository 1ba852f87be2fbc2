package probe

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/net/http2/hpack"
)

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// frame makes one HTTP/2 frame (RFC 9113 section 4.1).
func frame(kind, flags byte, stream uint32, payload string) string {
	n := len(payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return string(binary.BigEndian.AppendUint32(b, stream)) + payload
}

// block compresses header fields given as name, value, name, value …
func block(fields ...string) string {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i+1 < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return b.String()
}

// http2Kinds are connections with HTTP/2, well formed and not.
func http2Kinds(opt Options) []Kind {
	start := preface + frame(4, 0, 0, "")
	host := opt.ServerName
	head := func(method, path string, more ...string) string {
		return block(append([]string{":method", method, ":scheme", "https", ":authority", host, ":path", path}, more...)...)
	}
	var out []Kind
	add := func(name, input string) {
		out = append(out, Kind{Name: "http2 " + name, on: http2, input: fixed(input)})
	}

	for _, p := range append(slices.Clone(paths), opt.Paths...) {
		add("GET "+p, start+frame(1, 5, 1, head("GET", p)))
		add("POST "+p, start+frame(1, 4, 1, head("POST", p, "content-type", "application/octet-stream"))+frame(0, 1, 1, "hello"))
	}
	shapes := map[string]string{
		"preface only":           preface,
		"half a preface":         preface[:12],
		"preface and settings":   start,
		"HEAD /":                 start + frame(1, 5, 1, head("HEAD", "/")),
		"OPTIONS /":              start + frame(1, 5, 1, head("OPTIONS", "/")),
		"OPTIONS *":              start + frame(1, 5, 1, head("OPTIONS", "*")),
		"BREW":                   start + frame(1, 5, 1, head("BREW", "/")),
		"stalled body":           start + frame(1, 4, 1, head("POST", "/connect")) + frame(0, 0, 1, "abc"),
		"no body yet":            start + frame(1, 4, 1, head("POST", "/connect", "content-type", "application/octet-stream", "te", "trailers")),
		"length and less":        start + frame(1, 4, 1, head("POST", "/connect", "content-length", "10")) + frame(0, 1, 1, "abc"),
		"expect":                 start + frame(1, 4, 1, head("POST", "/connect", "expect", "100-continue")),
		"trailers":               start + frame(1, 4, 1, head("POST", "/x")) + frame(0, 0, 1, "abc") + frame(1, 5, 1, block("t", "x")),
		"connect":                start + frame(1, 4, 1, block(":method", "CONNECT", ":authority", "127.0.0.1:22")),
		"extended connect":       start + frame(1, 4, 1, head("CONNECT", "/connect", ":protocol", "websocket")),
		"two requests":           start + frame(1, 5, 1, head("GET", "/")) + frame(1, 5, 3, head("GET", "/nothing")),
		"goaway":                 start + frame(7, 0, 0, "\x00\x00\x00\x00\x00\x00\x00\x00"),
		"ping":                   start + frame(6, 0, 0, "abcdefgh"),
		"ping ack":               start + frame(6, 1, 0, "abcdefgh"),
		"short ping":             start + frame(6, 0, 0, "abc"),
		"ping on stream":         start + frame(6, 0, 1, "abcdefgh"),
		"unknown frame":          start + frame(0x55, 0, 0, "abc") + frame(6, 0, 0, "abcdefgh"),
		"settings odd length":    preface + frame(4, 0, 0, "abc"),
		"settings ack with data": start + frame(4, 1, 0, "abcdef"),
		"settings on stream":     start + frame(4, 0, 1, ""),
		"settings zero window":   preface + frame(4, 0, 0, "\x00\x04\x00\x00\x00\x00") + frame(1, 5, 1, head("GET", "/")),
		"settings big window":    preface + frame(4, 0, 0, "\x00\x04\xff\xff\xff\xff"),
		"settings push 7":        preface + frame(4, 0, 0, "\x00\x02\x00\x00\x00\x07"),
		"settings small frame":   preface + frame(4, 0, 0, "\x00\x05\x00\x00\x00\x01"),
		"no settings":            preface + frame(1, 5, 1, head("GET", "/")),
		"headers on 0":           start + frame(1, 5, 0, head("GET", "/")),
		"headers on 2":           start + frame(1, 5, 2, head("GET", "/")),
		"headers going back":     start + frame(1, 5, 5, head("GET", "/")) + frame(1, 5, 3, head("GET", "/")),
		"headers not ended":      start + frame(1, 1, 1, head("GET", "/")[:3]),
		"continuation":           start + frame(1, 1, 1, head("GET", "/")[:3]) + frame(9, 4, 1, head("GET", "/")[3:]),
		"continuation alone":     start + frame(9, 4, 1, "abc"),
		"continuation broken":    start + frame(1, 1, 1, head("GET", "/")[:3]) + frame(6, 0, 0, "abcdefgh"),
		"bad compression":        start + frame(1, 5, 1, "\xff\xff\xff\xff\xff\xff\xff\xff"),
		"empty header block":     start + frame(1, 5, 1, ""),
		"no path":                start + frame(1, 5, 1, block(":method", "GET", ":scheme", "https", ":authority", host)),
		"empty path":             start + frame(1, 5, 1, head("GET", "")),
		"no method":              start + frame(1, 5, 1, block(":scheme", "https", ":authority", host, ":path", "/")),
		"two methods":            start + frame(1, 5, 1, head("GET", "/", ":method", "POST")),
		"late pseudo header":     start + frame(1, 5, 1, block(":method", "GET", ":scheme", "https", "a", "b", ":path", "/", ":authority", host)),
		"unknown pseudo header":  start + frame(1, 5, 1, head("GET", "/", ":x", "y")),
		"upper-case header":      start + frame(1, 5, 1, head("GET", "/", "Abc", "d")),
		"connection header":      start + frame(1, 5, 1, head("GET", "/", "connection", "close")),
		"upgrade header":         start + frame(1, 5, 1, head("GET", "/connect", "connection", "upgrade", "upgrade", "websocket")),
		"line end in header":     start + frame(1, 5, 1, head("GET", "/", "a", "b\r\nc")),
		"large headers":          start + frame(1, 1, 1, head("GET", "/")) + frame(9, 4, 1, strings.Repeat(block("a", strings.Repeat("b", 900)), 17)),
		"data on 0":              start + frame(0, 1, 0, "abc"),
		"data on idle":           start + frame(0, 1, 7, "abc"),
		"data after end":         start + frame(1, 5, 1, head("GET", "/")) + frame(0, 1, 1, "abc"),
		"padding too long":       start + frame(1, 4, 1, head("POST", "/")) + frame(0, 8, 1, "\xff"),
		"window zero":            start + frame(8, 0, 0, "\x00\x00\x00\x00"),
		"window overflow":        start + frame(8, 0, 0, "\x7f\xff\xff\xff") + frame(8, 0, 0, "\x7f\xff\xff\xff"),
		"window on idle":         start + frame(8, 0, 9, "\x00\x00\x00\x01"),
		"priority on itself":     start + frame(2, 0, 1, "\x00\x00\x00\x01\x00"),
		"priority short":         start + frame(2, 0, 1, "\x00"),
		"push promise":           start + frame(5, 4, 1, "\x00\x00\x00\x02"+head("GET", "/")),
		"reset idle":             start + frame(3, 0, 1, "\x00\x00\x00\x00"),
		"frame too long":         start + "\xff\xff\xff\x00\x00\x00\x00\x00\x01",
		"half a frame":           start + "\x00\x00\x05\x01",
		"cookie crumbs":          start + frame(1, 5, 1, head("GET", "/connect", "cookie", "a=b", "cookie", opt.Cookie+"=x")),
		"event stream":           start + frame(1, 5, 1, head("GET", "/connect", "accept", "text/event-stream")),
		"bearer":                 start + frame(1, 5, 1, head("GET", "/api/devices", "authorization", "Bearer "+strings.Repeat("ab", 32))),
	}
	for _, name := range sortedKeys(shapes) {
		add(name, shapes[name])
	}
	tokenRequest := func(name, method, path string, end byte, cookie func(*rand.Rand) string) {
		out = append(out, Kind{Name: "http2 " + name, on: http2, input: func(r *rand.Rand, o Options) []byte {
			in := start + frame(1, 4|end, 1, head(method, path, "cookie", o.Cookie+"="+cookie(r)))
			if end == 0 {
				in += frame(0, 0, 1, "abc")
			}
			return []byte(in)
		}})
	}
	tokenRequest("POST made-up token", "POST", append(opt.Paths, "/connect")[0], 0, token)
	for _, p := range append([]string{"/connect", "/"}, opt.Paths...) {
		tokenRequest("POST made-up token "+p, "POST", p, 0, token)
		tokenRequest("GET made-up token "+p, "GET", p, 1, token)
		tokenRequest("GET made-up stream "+p, "GET", p, 1, func(r *rand.Rand) string { return splitToken(r, 1) })
		tokenRequest("POST made-up upload "+p, "POST", p, 0, func(r *rand.Rand) string { return splitToken(r, 2) })
		tokenRequest("POST short token "+p, "POST", p, 0, func(r *rand.Rand) string { return token(r)[:40] })
	}
	return out
}
