package masque

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

// TestMain looks for goroutines that are left; a closed client may linger, and
// a server waits for clients that have gone without a word.
func TestMain(m *testing.M) {
	code := m.Run()
	for end := time.Now().Add(idleClient + 2*lingerTime); code == 0; {
		err := goleak.Find()
		if err == nil {
			break
		}
		if time.Now().After(end) {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// page is the site that strangers see. It shows what it was asked and reads the
// body, so that a body touched before shows.
var page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	// A CONNECT's body may have no end.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	n, _ := io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
	case r.URL.Path != "/":
		w.WriteHeader(http.StatusNotFound)
	}
	fmt.Fprintf(w, "<p>%s %s: %d bytes\n", r.Method, r.URL.Path, n)
})

// relay is a running server half.
type relay struct {
	server transport.Server
	state  string
}

// start runs the server half until the test ends; accept gets each stream.
func start(t testing.TB, config map[string]any, accept func(net.Conn)) *relay {
	t.Helper()
	return startIn(t, t.TempDir(), config, accept)
}

func startIn(t testing.TB, state string, config map[string]any, accept func(net.Conn)) *relay {
	t.Helper()
	raw := map[string]any{"listen": "127.0.0.1:0"}
	maps.Copy(raw, config)
	o, err := transport.Open(t.Context(), Plugin(), sdk.NewEnv(sdk.EnvOptions{State: state, Cover: page}), raw)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := o.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				accept(c)
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-over
	})
	return &relay{server: ln.(transport.Server), state: state}
}

// endpoint is what a link says.
func (r *relay) endpoint(t testing.TB, guest string) transport.Endpoint {
	t.Helper()
	e, err := r.server.Invite(t.Context(), "127.0.0.1", transport.Guest{ID: guest})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// opened is the client half.
func opened(t testing.TB, config map[string]any) transport.Opened {
	t.Helper()
	o, err := transport.Open(t.Context(), Plugin(), nil, config)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// client gives a function that dials as the guest of a link.
func (r *relay) client(t testing.TB, config map[string]any) func(context.Context) (net.Conn, error) {
	o, e := opened(t, config), r.endpoint(t, "link-1")
	return func(ctx context.Context) (net.Conn, error) { return o.Dial(ctx, e, transport.Dial{}) }
}

// patient keeps a suite's client from trying TCP beside a QUIC that is slow on a busy
// machine: the loser of the two would be one more connection for the suite's server.
const patient = "10s"

// TestConformance runs the other modes; TestPlugin has the usual one.
func TestConformance(t *testing.T) {
	for _, mode := range []string{modeWebSocket, modeUDP, modeDatagram} {
		t.Run(mode, func(t *testing.T) {
			plugintest.Transport(t, plugintest.TransportPair{
				Name: Name,
				Start: func(t testing.TB, accept func(net.Conn)) func(context.Context) (net.Conn, error) {
					return start(t, map[string]any{"guest_sessions": 1000}, accept).client(t, map[string]any{"mode": mode, "fallback": patient})
				},
			})
		})
	}
	t.Run("tcp", func(t *testing.T) {
		plugintest.Transport(t, plugintest.TransportPair{
			Name: Name,
			Start: func(t testing.TB, accept func(net.Conn)) func(context.Context) (net.Conn, error) {
				r := start(t, map[string]any{"guest_sessions": 1000}, accept)
				inv, err := readInvitation(r.endpoint(t, "link-1"), transport.Dial{})
				if err != nil {
					t.Fatal(err)
				}
				d := &dialer{to: r.endpoint(t, "link-1"), inv: inv}
				return d.overTCP
			},
		})
	})
}
