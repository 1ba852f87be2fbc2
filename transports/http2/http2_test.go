package http2_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/http2"
	"github.com/commucat/commucat/transports/internal/webtest"
)

var both = webtest.Transport{
	Web: func(s *webtest.Site) transport.Web {
		return http2.New(http2.Options{Path: webtest.Path, Cookie: webtest.Cookie, Verify: s.Verifier.Verify, Cover: webtest.Cover()})
	},
	Dialer: http2.NewDialer(),
}

func TestConformance(t *testing.T) { both.Conformance(t, "h2", "http/1.1") }

func TestStrangers(t *testing.T) {
	both.Strangers(t, webtest.Good{Method: "POST", Head: "Transfer-Encoding: chunked\r\n", Body: "5\r\nhello\r\n0\r\n\r\n"})
}

// An independent client: net/http over HTTP/2, and raw chunks over HTTP/1.1.
func TestOtherClients(t *testing.T) {
	site := both.Start(t, func(c net.Conn) { _, _ = io.Copy(c, struct{ io.Reader }{c}) })
	t.Run("net/http over h2", func(t *testing.T) {
		r, w := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, site.URL(), r)
		if err != nil {
			t.Fatal(err)
		}
		req.AddCookie(&http.Cookie{Name: webtest.Cookie, Value: site.Token("POST", webtest.Path, "")})
		resp, err := site.HTTP(t, true).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		want := http.Header{"Content-Type": {"application/octet-stream"}, "Cache-Control": {"no-store"}, "X-Accel-Buffering": {"no"}}
		resp.Header.Del("Date")
		if diff := cmp.Diff(want, resp.Header); diff != "" || resp.ProtoMajor != 2 {
			t.Errorf("HTTP/%d %s", resp.ProtoMajor, diff)
		}
		for _, word := range []string{"one", "two"} {
			if _, err := io.WriteString(w, word); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 3)
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != word {
				t.Fatalf("%q %v", got, err)
			}
		}
		_ = w.Close()
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("%q %v", rest, err)
		}
	})
	t.Run("raw http/1.1", func(t *testing.T) {
		c := webtest.Connect(t, site)
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: relay.example\r\nTransfer-Encoding: chunked\r\nCookie: %s=%s\r\n\r\n",
			webtest.Path, webtest.Cookie, site.Token("POST", webtest.Path, ""))
		// The head comes before a byte of the body was sent.
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		for range 2 {
			_, _ = io.WriteString(c, "3\r\nabc\r\n")
			got := make([]byte, 3)
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != "abc" {
				t.Fatalf("%q %v", got, err)
			}
		}
	})
	t.Run("curl", func(t *testing.T) {
		curl, err := exec.LookPath("curl")
		if err != nil {
			t.Skip("curl is not installed")
		}
		for _, version := range []string{"--http1.1", "--http2"} {
			out, err := exec.CommandContext(t.Context(), curl, "-sk", "--max-time", "10", version, "--data-binary", "hello curl",
				"-b", webtest.Cookie+"="+site.Token("POST", webtest.Path, ""), site.URL()).Output()
			if err != nil || string(out) != "hello curl" {
				t.Errorf("%s: %q %v", version, out, err)
			}
		}
	})
}

// Pins replace the roots, and without pins the roots decide.
func TestTrust(t *testing.T) {
	site := both.Start(t, func(c net.Conn) { _, _ = io.Copy(c, struct{ io.Reader }{c}) })
	tests := []struct {
		name   string
		change func(*transport.Dial, *transport.Endpoint)
		ok     bool
	}{
		{"pin", func(*transport.Dial, *transport.Endpoint) {}, true},
		{"second of two pins", func(d *transport.Dial, _ *transport.Endpoint) { d.Pins = append([][32]byte{{1}}, d.Pins...) }, true},
		{"wrong pin", func(d *transport.Dial, _ *transport.Endpoint) { d.Pins = [][32]byte{{1}}; d.Roots = site.Roots }, false},
		{"roots", func(d *transport.Dial, _ *transport.Endpoint) { d.Pins, d.Roots = nil, site.Roots }, true},
		{"roots, name from sni", func(d *transport.Dial, e *transport.Endpoint) {
			d.Pins, d.Roots = nil, site.Roots
			e.Params[transport.ParamName] = "relay.example"
		}, true},
		{"roots, other name", func(d *transport.Dial, e *transport.Endpoint) {
			d.Pins, d.Roots = nil, site.Roots
			e.Params[transport.ParamName] = "other.example"
		}, false},
		{"system roots", func(d *transport.Dial, _ *transport.Endpoint) { d.Pins = nil }, false},
		{"insecure", func(d *transport.Dial, _ *transport.Endpoint) { d.Pins, d.Insecure = nil, true }, true},
		{"firefox", func(d *transport.Dial, _ *transport.Endpoint) { d.Fingerprint = "firefox" }, true},
		{"safari", func(d *transport.Dial, _ *transport.Endpoint) { d.Fingerprint = "safari" }, true},
		{"ios", func(d *transport.Dial, _ *transport.Endpoint) { d.Fingerprint = "ios" }, true},
		{"edge", func(d *transport.Dial, _ *transport.Endpoint) { d.Fingerprint = "edge" }, true},
		{"go", func(d *transport.Dial, _ *transport.Endpoint) { d.Fingerprint = "go" }, true},
		{"unknown fingerprint", func(d *transport.Dial, _ *transport.Endpoint) { d.Fingerprint = "netscape" }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			to, with := site.Endpoint, site.Dial
			to.Params = maps.Clone(to.Params)
			var clock time.Time
			began := time.Now()
			with.ServerTime = func(at time.Time) { clock = at }
			tt.change(&with, &to)
			c, err := http2.NewDialer().Dial(t.Context(), to, with)
			if (err == nil) != tt.ok {
				t.Fatalf("dial: %v", err)
			}
			if err != nil {
				return
			}
			defer c.Close()
			if clock.Before(began.Add(-2*time.Second)) || clock.After(time.Now().Add(time.Second)) {
				t.Errorf("server's clock %v, began %v", clock, began)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	site := webtest.Start(t, func(s *webtest.Site) http.Handler {
		return webtest.Mount(http2.New(http2.Options{Path: webtest.Path, Cookie: webtest.Cookie, Verify: s.Verifier.Verify}), nil)
	})
	with := site.Dial
	with.Token = func(_, _, _ string) string { return strings.Repeat("A", entry.TokenLength) }
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := http2.NewDialer().Dial(ctx, site.Endpoint, with); !errors.Is(err, transport.ErrRefused) {
		t.Errorf("bad token: %v", err)
	}
}
