package websocket

import (
	"net"
	"net/http"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/gate"
	"github.com/commucat/commucat/transports/internal/ws"
)

// Name is the transport's name in links, lists and metrics.
const Name = "websocket"

// Options configure the server half.
type Options struct {
	// Path is the connect path, compared exactly; a query is never ours.
	Path string
	// Cookie is the name of the cookie with the entry token.
	Cookie string
	// Verify checks a token, see [entry.Verifier.Verify]. nil refuses all.
	Verify func(method, path, cookie string) (entry.Stream, bool, error)
	// Cover answers every request that is not ours; nil is a plain 404.
	Cover http.Handler
}

type server struct {
	gate gate.Options
	bufs ws.Buffers
}

// New returns the server half. A session runs on a goroutine of its own, so
// that nothing of the HTTP exchange stays in memory.
func New(o Options) transport.Web { return &server{gate: gate.Options(o)} }

// Name returns "websocket".
func (s *server) Name() string { return Name }

// Match says whether r is an upgrade of the connect path with the shape of a
// token; the token itself is checked by Serve.
func (s *server) Match(r *http.Request) bool {
	_, ok := s.value(r)
	return ok
}

func (s *server) value(r *http.Request) (string, bool) {
	if r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor < 1 {
		return "", false
	}
	v, ok := s.gate.Plain(r)
	if !ok || !ws.Upgrade(r) || r.Header.Get("Sec-Websocket-Version") != "13" ||
		!ws.ValidKey(r.Header.Get("Sec-Websocket-Key")) {
		return "", false
	}
	return v, true
}

// Serve answers one request and returns at once.
func (s *server) Serve(w http.ResponseWriter, r *http.Request, accept func(net.Conn)) {
	value, ok := s.value(r)
	if !ok || !s.gate.Good(r, value) {
		s.gate.Refuse(w, r)
		return
	}
	stream, err := ws.Hijack(w, r, "", &s.bufs)
	if stream == nil {
		s.gate.Refuse(w, r)
		return
	}
	if err != nil {
		_ = stream.NetConn().Close()
		return
	}
	c := &conn{Conn: stream, facts: gate.Facts(Name, r)}
	go func() {
		defer c.Finish()
		defer c.Close()
		accept(c)
	}()
}

// conn is the server's end.
type conn struct {
	*ws.Conn
	facts transport.Facts
}

// Path says who came and how.
func (c *conn) Path() transport.Facts { return c.facts }
