package probe

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// paths are those that a relay of this family is known to answer to, and some
// that every scanner asks for.
var paths = []string{
	"/", "/index.html", "/connect", "/healthz", "/readyz", "/metrics", "/openapi.json", "/p2p", "/uploads/", "/uploads/x.png",
	"/api/server-info", "/api/pair", "/api/pair/claim", "/api/devices", "/api/friends", "/api/p2p/assist", "/api/security-stats",
	"/api/unknown", "/federation/events", "/robots.txt", "/favicon.ico", "/.well-known/acme-challenge/x", "/.git/config", "/admin",
	"/%2e%2e/%2e%2e/etc/passwd", "//", "/a//b", "/?x=%zz", "/index.html?mode=sse",
}

// http1Kinds are requests over TLS with HTTP/1.1.
func http1Kinds(opt Options) []Kind {
	req := func(name, format string) Kind {
		return Kind{Name: "http1 " + name, on: http1, input: func(_ *rand.Rand, o Options) []byte {
			return []byte(strings.ReplaceAll(format, "{host}", o.ServerName))
		}}
	}
	var out []Kind
	for _, p := range append(slices.Clone(paths), opt.Paths...) {
		out = append(out,
			req("GET "+p, "GET "+p+" HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
			req("POST "+p, "POST "+p+" HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"a\":"))
	}
	const host = "Host: {host}\r\n"
	shapes := map[string]string{
		"HEAD /":               "HEAD / HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n",
		"HEAD unknown":         "HEAD /nothing HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n",
		"OPTIONS *":            "OPTIONS * HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n",
		"OPTIONS /":            "OPTIONS / HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n",
		"TRACE":                "TRACE / HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n",
		"CONNECT":              "CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1:443\r\n\r\n",
		"PUT":                  "PUT /x HTTP/1.1\r\n" + host + "Content-Length: 2\r\nConnection: close\r\n\r\nhi",
		"DELETE":               "DELETE /x HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n",
		"PROPFIND":             "PROPFIND / HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n",
		"BREW":                 "BREW / HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n",
		"PRI":                  preface,
		"lower-case method":    "get / HTTP/1.1\r\n" + host + "\r\n",
		"no host":              "GET / HTTP/1.1\r\n\r\n",
		"two hosts":            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"bad host":             "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
		"absolute form":        "GET https://{host}/ HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n",
		"http/0.9":             "GET /\r\n",
		"http/1.0":             "GET / HTTP/1.0\r\n\r\n",
		"http/1.0 keep-alive":  "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"http/2.0":             "GET / HTTP/2.0\r\n" + host + "\r\n",
		"http/9.9":             "GET / HTTP/9.9\r\n" + host + "\r\n",
		"no version":           "GET / \r\n\r\n",
		"junk line":            "\x01\x02\x03\x04\r\n\r\n",
		"line feeds only":      "GET / HTTP/1.1\nHost: {host}\nConnection: close\n\n",
		"leading blank lines":  "\r\n\r\nGET / HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n",
		"header without colon": "GET / HTTP/1.1\r\n" + host + "abc\r\n\r\n",
		"space before colon":   "GET / HTTP/1.1\r\n" + host + "A : b\r\n\r\n",
		"zero byte in header":  "GET / HTTP/1.1\r\n" + host + "A: b\x00c\r\n\r\n",
		"folded header":        "GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\nConnection: close\r\n\r\n",
		"unfinished header":    "GET / HTTP/1.1\r\n" + host,
		"large header":         "GET / HTTP/1.1\r\n" + host + "A: " + strings.Repeat("a", 48<<10) + "\r\n\r\n",
		"long path":            "GET /" + strings.Repeat("a", 60<<10) + " HTTP/1.1\r\n" + host + "\r\n",
		"many headers":         "GET / HTTP/1.1\r\n" + host + strings.Repeat("A: b\r\n", 3000) + "Connection: close\r\n\r\n",
		"two lengths":          "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
		"negative length":      "POST / HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n",
		"huge length":          "POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n",
		"length and chunked":   "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
		"odd transfer coding":  "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"bad chunk":            "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
		"chunked body":         "POST /connect HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: x\r\n\r\n",
		"stalled body":         "POST /connect HTTP/1.1\r\n" + host + "Content-Length: 100\r\n\r\nabc",
		"stalled chunks":       "POST /connect HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
		"expect continue":      "POST /connect HTTP/1.1\r\n" + host + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
		"expect other":         "POST /connect HTTP/1.1\r\n" + host + "Content-Length: 5\r\nExpect: magic\r\n\r\nhello",
		"pipelined":            "GET / HTTP/1.1\r\n" + host + "\r\nGET /nothing HTTP/1.1\r\n" + host + "Connection: close\r\n\r\n",
		"keep-alive":           "GET / HTTP/1.1\r\n" + host + "\r\n",
		"h2c upgrade":          "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
		"odd upgrade":          "GET / HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: foo\r\n\r\n",
		"websocket /":          "GET / HTTP/1.1\r\n" + host + websocket + "\r\n",
		"websocket /connect":   "GET /connect HTTP/1.1\r\n" + host + websocket + "\r\n",
		"websocket /p2p":       "GET /p2p HTTP/1.1\r\n" + host + websocket + "\r\n",
		"event stream":         "GET /connect HTTP/1.1\r\n" + host + "Accept: text/event-stream\r\nConnection: close\r\n\r\n",
		"connect mode":         "POST /connect?mode=longpoll HTTP/1.1\r\n" + host + "X-CommuCat-Connect-Mode: sse\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		"ccp bytes":            "POST /connect HTTP/1.1\r\n" + host + "Content-Type: application/octet-stream\r\nContent-Length: 12\r\nConnection: close\r\n\r\n\x0b\x01\x00\x00\x07{\"a\":1}",
		"range":                "GET / HTTP/1.1\r\n" + host + "Range: bytes=0-9\r\nConnection: close\r\n\r\n",
		"many ranges":          "GET / HTTP/1.1\r\n" + host + "Range: bytes=0-1,5-6,900000-\r\nConnection: close\r\n\r\n",
		"bad range":            "GET / HTTP/1.1\r\n" + host + "Range: bytes=99999999-\r\nConnection: close\r\n\r\n",
		"if-none-match *":      "GET / HTTP/1.1\r\n" + host + "If-None-Match: *\r\nConnection: close\r\n\r\n",
		"if-modified-since":    "GET / HTTP/1.1\r\n" + host + "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\nConnection: close\r\n\r\n",
		"bearer":               "GET /api/devices HTTP/1.1\r\n" + host + "Authorization: Bearer " + strings.Repeat("ab", 32) + "\r\nConnection: close\r\n\r\n",
		"basic":                "GET /metrics HTTP/1.1\r\n" + host + "Authorization: Basic YTpi\r\nConnection: close\r\n\r\n",
		"forwarded":            "GET / HTTP/1.1\r\n" + host + "X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\nConnection: close\r\n\r\n",
		"cors":                 "OPTIONS /api/pair HTTP/1.1\r\n" + host + "Origin: https://a\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n",
	}
	for _, name := range sortedKeys(shapes) {
		out = append(out, req(name, shapes[name]))
	}
	return append(out, tokenKinds(opt)...)
}

const websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// tokenKinds show made-up tokens on every path that might be a transport's.
func tokenKinds(opt Options) []Kind {
	var out []Kind
	for _, p := range append([]string{"/connect", "/", "/api/server-info"}, opt.Paths...) {
		for name, c := range map[string]struct {
			request string
			cookie  func(*rand.Rand) string
		}{
			"POST made-up token":      {"POST %s HTTP/1.1\r\nContent-Length: 3\r\n", token},
			"POST short token":        {"POST %s HTTP/1.1\r\nContent-Length: 3\r\n", func(r *rand.Rand) string { return token(r)[:47] }},
			"POST odd token":          {"POST %s HTTP/1.1\r\nContent-Length: 3\r\n", func(r *rand.Rand) string { return token(r)[:47] + "!" }},
			"GET made-up token":       {"GET %s HTTP/1.1\r\n", token},
			"GET made-up stream":      {"GET %s HTTP/1.1\r\nAccept: text/event-stream\r\n", func(r *rand.Rand) string { return splitToken(r, 1) }},
			"GET made-up poll":        {"GET %s HTTP/1.1\r\n", func(r *rand.Rand) string { return splitToken(r, 0) }},
			"POST made-up upload":     {"POST %s HTTP/1.1\r\nContent-Length: 3\r\n", func(r *rand.Rand) string { return splitToken(r, 2) }},
			"websocket made-up token": {"GET %s HTTP/1.1\r\n" + websocket, token},
			"POST token and stall":    {"POST %s HTTP/1.1\r\nContent-Length: 3000\r\n", token},
		} {
			out = append(out, Kind{Name: "http1 " + name + " " + p, on: http1, input: func(r *rand.Rand, o Options) []byte {
				return fmt.Appendf(nil, c.request+"Host: %s\r\nCookie: %s=%s\r\n\r\nabc", p, o.ServerName, o.Cookie, c.cookie(r))
			}})
		}
	}
	slices.SortFunc(out, func(a, b Kind) int { return strings.Compare(a.Name, b.Name) })
	return out
}
