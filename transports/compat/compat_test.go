package compat_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/compat"
	"github.com/commucat/commucat/transports/http2"
	"github.com/commucat/commucat/transports/internal/webtest"
)

const path = "/connect"

func start(t testing.TB, every time.Duration, accept func(net.Conn), protocols ...string) *webtest.Site {
	return webtest.Start(t, func(*webtest.Site) http.Handler {
		return webtest.Mount(compat.New(compat.Options{Path: path, KeepAlive: every, Cover: webtest.Cover()}), accept)
	}, protocols...)
}

// The client half of http2 without a token is the reference's binary mode. The
// relay's first byte stands for its answer to the Hello.
func TestConformance(t *testing.T) {
	for _, proto := range []string{"h2", "http/1.1"} {
		t.Run(proto, func(t *testing.T) {
			plugintest.Transport(t, plugintest.TransportPair{
				Name: compat.Name,
				Start: func(t testing.TB, accept func(net.Conn)) func(context.Context) (net.Conn, error) {
					site := start(t, 0, func(c net.Conn) {
						if _, err := c.Write([]byte("A")); err == nil {
							accept(c)
						}
					}, proto)
					site.Endpoint.Params[transport.ParamPath] = path
					site.Dial.Token = nil
					dial := site.Dialer(http2.NewDialer())
					return func(ctx context.Context) (net.Conn, error) {
						c, err := dial(ctx)
						if err == nil {
							_, err = io.ReadFull(c, make([]byte, 1))
						}
						return c, err
					}
				},
			})
		})
	}
}

func TestSelect(t *testing.T) {
	tests := []struct {
		target string
		head   []string
		want   compat.Mode
	}{
		{"/connect", nil, compat.Binary},
		{"/connect?mode=sse", nil, compat.Events},
		{"/connect?MODE=%73se&Transport=Poll&mode=ws", nil, compat.LongPoll},
		{"/connect?mode=none", []string{"X-Connect-Mode", " WS "}, compat.WebSocket},
		{"/connect", []string{"X-Connect-Mode", "none", "X-CommuCat-Connect-Mode", "event-stream"}, compat.Events},
		{"/connect", []string{"Upgrade", "WebSocket", "Connection", "keep-alive, Upgrade"}, compat.WebSocket},
		{"/connect", []string{"Upgrade", "websocket"}, compat.Binary},
		{"/connect?transport=stream", []string{"Upgrade", "websocket", "Connection", "upgrade"}, compat.Binary},
		{"/connect", []string{"Accept", "text/html, text/event-stream"}, compat.Events},
		{"/connect", []string{"Accept", "text/event-stream;q=0.9"}, compat.Binary},
	}
	for _, tt := range tests {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, tt.target, nil)
		for i := 0; i+1 < len(tt.head); i += 2 {
			r.Header.Set(tt.head[i], tt.head[i+1])
		}
		if got := compat.Select(r); got != tt.want {
			t.Errorf("%s %q: %s, want %s", tt.target, tt.head, got, tt.want)
		}
	}
}

func TestInterval(t *testing.T) {
	for seconds, want := range map[int]int{60: 30, 0: 5, 2: 5, 61: 30, 120: 60} {
		if got := compat.Interval(time.Duration(seconds) * time.Second); got != time.Duration(want)*time.Second {
			t.Errorf("%d s: %v", seconds, got)
		}
	}
}

// The worked examples of connect_modes.
func TestUnits(t *testing.T) {
	clear, _ := base64.StdEncoding.DecodeString("Fg0AAhJ7ImVycm9yIjoiZGVjb2RlIn0=")
	record, _ := base64.StdEncoding.DecodeString("Hy+6MW7hQixpt8Agy1dxrQdAZ4zwqAp8vi9PMJmV5U0=")
	tests := []struct {
		mode, kind, want string
	}{
		{"sse", "text/event-stream", ":ready\n\n" +
			"event: frame\nid: 2\ndata: Fg0AAhJ7ImVycm9yIjoiZGVjb2RlIn0=\n\n" +
			"event: frame\nid: 3\ndata: Hy+6MW7hQixpt8Agy1dxrQdAZ4zwqAp8vi9PMJmV5U0=\n\n" +
			":keepalive\n\n:keepalive\n\n"},
		{"long-poll", "application/x-ndjson",
			`{"channel":0,"data":"Fg0AAhJ7ImVycm9yIjoiZGVjb2RlIn0=","sequence":2,"type":"auth"}` + "\n" +
				`{"channel":300,"data":"Hy+6MW7hQixpt8Agy1dxrQdAZ4zwqAp8vi9PMJmV5U0=","sequence":3,"type":"ack"}` + "\n" +
				"{\"keepalive\":true}\n{\"keepalive\":true}\n"},
	}
	for _, tt := range tests {
		for _, h2 := range []bool{true, false} {
			t.Run(fmt.Sprint(tt.mode, " h2 ", h2), func(t *testing.T) {
				site := start(t, 20*time.Millisecond, func(c net.Conn) {
					f := transport.FactsOf(c)
					if !f.Compat || f.Entered || f.UserAgent != "CommuCat-CLI/0.1" || f.Transport != compat.Name {
						t.Errorf("facts %+v", f)
					}
					hello := make([]byte, 5)
					if _, err := io.ReadFull(c, hello); err != nil || string(hello) != "hello" {
						t.Errorf("upstream %q %v", hello, err)
					}
					if _, err := c.Write(clear); !errors.Is(err, errors.ErrUnsupported) {
						t.Errorf("write: %v", err)
					}
					w := c.(transport.FrameWriter)
					if err := errors.Join(w.WriteFrame("auth", 0, 2, clear), w.WriteFrame("ack", 300, 3, record)); err != nil {
						t.Error(err)
					}
					_, _ = c.Read(hello)
				})
				r, w := io.Pipe()
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+site.Addr+path+"?mode="+tt.mode, r)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("User-Agent", "CommuCat-CLI/0.1")
				go func() { _, _ = io.WriteString(w, "hello") }()
				resp, err := site.HTTP(t, h2).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				resp.Header.Del("Date")
				want := http.Header{"Content-Type": {tt.kind}, "Cache-Control": {"no-store"}, "X-Commucat-Connect-Mode": {tt.mode}}
				if tt.mode == "sse" && !h2 {
					want["Connection"] = []string{"keep-alive"}
				}
				if diff := cmp.Diff(want, resp.Header); diff != "" {
					t.Error(diff)
				}
				got := make([]byte, len(tt.want))
				if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != tt.want {
					t.Errorf("%v\n%s", err, cmp.Diff(tt.want, string(got)))
				}
				_ = w.Close()
			})
		}
	}
}

// Who never shows a Hello gets the cover's answer with the body as sent.
func TestRefused(t *testing.T) {
	sessions := map[string]func(net.Conn){
		"refused": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 3))
			c.(transport.Withheld).Refuse()
			if _, err := c.Write([]byte("x")); err == nil {
				t.Error("written after Refuse")
			}
		},
		"closed":   func(c net.Conn) { _, _ = c.Read(make([]byte, 3)); _ = c.Close() },
		"returned": func(net.Conn) {},
		"deadline": func(c net.Conn) {
			_ = c.SetReadDeadline(time.Now().Add(time.Hour))
			_, _ = io.ReadAll(c)
		},
	}
	cover := webtest.Start(t, func(*webtest.Site) http.Handler { return webtest.Cover() })
	requests := map[string]string{
		"post":         "POST /connect HTTP/1.1\r\nHost: relay.example\r\nContent-Length: 10\r\n\r\n0123456789",
		"empty post":   "POST /connect?mode=sse HTTP/1.1\r\nHost: relay.example\r\nContent-Length: 0\r\n\r\n",
		"chunked":      "POST /connect HTTP/1.1\r\nHost: relay.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
		"get":          "GET /connect HTTP/1.1\r\nHost: relay.example\r\n\r\n",
		"other method": "PUT /connect HTTP/1.1\r\nHost: relay.example\r\nContent-Length: 2\r\n\r\nab",
		"other path":   "POST /connect/ HTTP/1.1\r\nHost: relay.example\r\nContent-Length: 2\r\n\r\nab",
		"long":         "POST /connect HTTP/1.1\r\nHost: relay.example\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000),
	}
	for name, session := range sessions {
		site := start(t, 0, session)
		for what, request := range requests {
			if got, want := webtest.Raw(t, site, request), webtest.Raw(t, cover, request); got != want {
				t.Errorf("%s, %s:\n%s\nwant\n%s", name, what, got, want)
			}
		}
	}
}

// Nothing goes out before the first write.
func TestWithheld(t *testing.T) {
	write := make(chan struct{})
	site := start(t, 0, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 3))
		<-write
		_, _ = c.Write([]byte("now"))
	})
	c := webtest.Connect(t, site)
	_, _ = io.WriteString(c, "POST /connect HTTP/1.1\r\nHost: relay.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
	close(write)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(resp.Body); string(got) != "now" || err != nil || resp.Header.Get("X-Commucat-Connect-Mode") != "binary" {
		t.Errorf("%q %v %v", got, err, resp.Header)
	}
}

func TestWebSocket(t *testing.T) {
	site := start(t, 0, func(c net.Conn) {
		p := make([]byte, 100)
		for {
			n, err := c.Read(p)
			if err != nil {
				_ = c.Close()
				return
			}
			if c.(transport.FrameWriter).WriteFrame("msg", 1, 1, bytes.ToUpper(p[:n])) != nil {
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, resp, err := coder.Dial(ctx, "https://"+site.Addr+path, &coder.DialOptions{HTTPClient: site.HTTP(t, false)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if got := resp.Header.Get("X-Commucat-Connect-Mode"); got != "websocket" {
		t.Errorf("mode %q", got)
	}
	for _, m := range []struct {
		kind coder.MessageType
		text string
	}{{coder.MessageBinary, "one"}, {coder.MessageText, "not base64 !"}, {coder.MessageText, " dHdv \n"}, {coder.MessageBinary, "three"}} {
		if err := c.Write(ctx, m.kind, []byte(m.text)); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(m.text, "not") {
			continue
		}
		want := map[string]string{"one": "ONE", " dHdv \n": "TWO", "three": "THREE"}[m.text]
		if kind, got, err := c.Read(ctx); err != nil || kind != coder.MessageBinary || string(got) != want {
			t.Fatalf("%q: %v %q %v", m.text, kind, got, err)
		}
	}
}

func TestWebSocketChecks(t *testing.T) {
	site := start(t, 0, func(net.Conn) { t.Error("accepted") })
	good := "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, tt := range []struct{ method, head, want string }{
		{"POST", good + "Content-Length: 0\r\n", "405"},
		{"GET", strings.Replace(good, "13", "8", 1), "400"},
		{"GET", strings.Replace(good, "Sec-WebSocket-Key", "X", 1), "400"},
		{"GET", strings.Replace(good, "Upgrade: websocket\r\n", "X-Connect-Mode: ws\r\n", 1), "400"},
	} {
		got := webtest.Raw(t, site, tt.method+" /connect HTTP/1.1\r\nHost: relay.example\r\n"+tt.head+"\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 "+tt.want) || !strings.Contains(got, "Content-Length: 0\r\n") {
			t.Errorf("%s %q: %q", tt.method, tt.head, got)
		}
	}
}
