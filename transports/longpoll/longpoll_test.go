package longpoll_test

import (
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"testing"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/webtest"
	"github.com/commucat/commucat/transports/longpoll"
)

func start(t testing.TB, accept func(net.Conn), protocols ...string) *webtest.Site {
	return webtest.Start(t, func(s *webtest.Site) http.Handler {
		return webtest.Mount(longpoll.New(longpoll.Options{
			Path: webtest.Path, Cookie: webtest.Cookie, Verify: s.Verifier.Verify, Cover: webtest.Cover(),
		}), accept)
	}, protocols...)
}

func TestConformance(t *testing.T) {
	for _, proto := range []string{"h2", "http/1.1"} {
		t.Run(proto, func(t *testing.T) {
			plugintest.Transport(t, plugintest.TransportPair{
				Name: longpoll.Name,
				Start: func(t testing.TB, accept func(net.Conn)) func(context.Context) (net.Conn, error) {
					return start(t, accept, proto).Dialer(longpoll.NewDialer())
				},
			})
		})
	}
}

func TestStrangers(t *testing.T) {
	draw := func() string {
		st := entry.Stream{Op: entry.OpOpen}
		_, _ = rand.Read(st.ID[:])
		return st.String()
	}
	webtest.Strangers(t, func(s *webtest.Site) transport.Web {
		return longpoll.New(longpoll.Options{Path: webtest.Path, Cookie: webtest.Cookie, Verify: s.Verifier.Verify, Cover: webtest.Cover()})
	}, webtest.Good{Method: "GET", St: draw, Head: "Accept: */*\r\n"})
}
