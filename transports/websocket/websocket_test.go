package websocket_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/webtest"
	"github.com/commucat/commucat/transports/websocket"
)

var both = webtest.Transport{
	Web: func(s *webtest.Site) transport.Web {
		return websocket.New(websocket.Options{Path: webtest.Path, Cookie: webtest.Cookie, Verify: s.Verifier.Verify, Cover: webtest.Cover()})
	},
	Dialer: websocket.NewDialer(),
}

func TestConformance(t *testing.T) { both.Conformance(t, "http/1.1") }

const upgradeHead = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

func TestStrangers(t *testing.T) {
	both.Strangers(t, webtest.Good{Method: "GET", Head: upgradeHead})
}

// A request that is no proper upgrade is the cover's, whatever its token.
func TestNotAnUpgrade(t *testing.T) {
	site := both.Start(t, func(c net.Conn) { t.Error("accepted") })
	cover := webtest.Start(t, func(*webtest.Site) http.Handler { return webtest.Cover() })
	for name, change := range map[string][2]string{
		"version":    {"Version: 13", "Version: 12"},
		"key":        {"dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"},
		"short key":  {"dGhlIHNhbXBsZSBub25jZQ==", "dGhl"},
		"upgrade":    {"Upgrade: websocket", "Upgrade: h2c"},
		"connection": {", Upgrade", ""},
	} {
		head := strings.Replace(upgradeHead, change[0], change[1], 1)
		request := "GET " + webtest.Path + " HTTP/1.1\r\nHost: relay.example\r\n" + head +
			"Cookie: " + webtest.Cookie + "=" + site.Token("GET", webtest.Path, "") + "\r\n\r\n"
		if got, want := webtest.Raw(t, site, request), webtest.Raw(t, cover, request); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// An independent peer against the server half.
func TestCoderClient(t *testing.T) {
	site := both.Start(t, func(c net.Conn) {
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
		_ = c.Close()
	})
	c, _, err := coder.Dial(t.Context(), site.URL(), &coder.DialOptions{
		HTTPClient: site.HTTP(t, false),
		HTTPHeader: http.Header{"Cookie": {webtest.Cookie + "=" + site.Token("GET", webtest.Path, "")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream := coder.NetConn(ctx, c, coder.MessageBinary)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	go func() { _, _ = stream.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(stream, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("echo: %v", err)
	}
	// Pings are answered while the reader waits.
	go func() { _, _ = stream.Read(make([]byte, 1)) }()
	if err := c.Ping(ctx); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := c.Close(coder.StatusNormalClosure, ""); err != nil && coder.CloseStatus(err) != coder.StatusNoStatusRcvd {
		t.Errorf("close: %v", err)
	}
}

// The client half against an independent server.
func TestCoderServer(t *testing.T) {
	site := webtest.Start(t, func(*webtest.Site) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := coder.Accept(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.CloseNow()
			for {
				kind, p, err := c.Read(r.Context())
				if err != nil {
					return
				}
				if c.Write(r.Context(), kind, p) != nil {
					return
				}
			}
		})
	})
	c, err := site.Dialer(websocket.NewDialer())(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, size := range []int{1, 125, 126, 65_535, 65_536, 300_000} {
		sent, got := bytes.Repeat([]byte{byte(size)}, size), make([]byte, size)
		go func() { _, _ = c.Write(sent) }()
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	if err := transport.CloseWrite(c); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after our close: %v", err)
	}
}

// Browsers offer http/1.1 alone for wss.
func TestHello(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	offered := make(chan []string, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = tls.Server(c, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			offered <- h.SupportedProtos
			return nil, errors.New("seen")
		}}).Handshake()
	}()
	to := transport.Endpoint{Host: "127.0.0.1", Port: uint16(ln.Addr().(*net.TCPAddr).Port)}
	if _, err := websocket.NewDialer().Dial(t.Context(), to, transport.Dial{}); err == nil {
		t.Error("dialled")
	}
	if got := <-offered; len(got) != 1 || got[0] != "http/1.1" {
		t.Errorf("ALPN %q", got)
	}
}
