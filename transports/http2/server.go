package http2

import (
	"net"
	"net/http"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/duplex"
	"github.com/commucat/commucat/transports/internal/gate"
)

// Name is the transport's name in links, lists and metrics.
const Name = "http2"

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

type server struct{ gate gate.Options }

// New returns the server half. Sessions run on the request's goroutine; the
// http.Server must set no read or write timeout for whole requests.
func New(o Options) transport.Web { return &server{gate: gate.Options(o)} }

// Name returns "http2".
func (s *server) Name() string { return Name }

// Match says whether r is a POST to the connect path with the shape of a
// token; the token itself is checked by Serve.
func (s *server) Match(r *http.Request) bool {
	if r.Method != http.MethodPost || !r.ProtoAtLeast(1, 1) {
		return false
	}
	_, ok := s.gate.Plain(r)
	return ok
}

// Serve answers one request and returns when accept has.
func (s *server) Serve(w http.ResponseWriter, r *http.Request, accept func(net.Conn)) {
	value, ok := s.gate.Plain(r)
	if !ok || r.Method != http.MethodPost || !s.gate.Good(r, value) {
		s.gate.Refuse(w, r)
		return
	}
	if r.ProtoMajor == 1 && http.NewResponseController(w).EnableFullDuplex() != nil {
		s.gate.Refuse(w, r)
		return
	}
	gate.Headers(w.Header(), "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	c := &conn{Conn: duplex.New(Name, w, r), r: r}
	defer c.Finish()
	if c.Flush() != nil {
		return
	}
	accept(c)
}

// conn is the server's end. It adds nothing to the memory of the exchange.
type conn struct {
	*duplex.Conn
	r *http.Request
}

// Path says who came and how.
func (c *conn) Path() transport.Facts { return gate.Facts(Name, c.r) }
