package longpoll_test

import (
	"testing"

	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/webtest"
	"github.com/commucat/commucat/transports/longpoll"
)

var both = webtest.Transport{
	Web: func(s *webtest.Site) transport.Web {
		return longpoll.New(longpoll.Options{Path: webtest.Path, Cookie: webtest.Cookie, Verify: s.Verifier.Verify, Cover: webtest.Cover()})
	},
	Dialer: longpoll.NewDialer(),
}

func TestConformance(t *testing.T) { both.Conformance(t, "h2", "http/1.1") }

func TestStrangers(t *testing.T) {
	both.Strangers(t, webtest.Good{Method: "GET", St: webtest.Open, Head: "Accept: */*\r\n"})
}
