package compat

import (
	"bytes"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/gate"
	"github.com/commucat/commucat/transports/internal/ws"
)

// Name is the transport's name in lists and metrics.
const Name = "compat"

// Options configure the server half.
type Options struct {
	// Path is compat.connect_path, compared exactly; any query is allowed.
	Path string
	// KeepAlive is the pause after which a silent event stream or NDJSON answer
	// is kept alive, see [Interval]; 0 is 30 s.
	KeepAlive time.Duration
	// Cover answers requests that never show a Hello; nil is a plain 404.
	Cover http.Handler
}

type server struct {
	path  string
	every time.Duration
	gate  gate.Options // for its cover alone
	bufs  ws.Buffers
}

// New returns the server half. Sessions of the three HTTP modes run on the
// request's goroutine, those of WebSockets on one of their own.
func New(o Options) transport.Web {
	if o.KeepAlive <= 0 {
		o.KeepAlive = Interval(60 * time.Second)
	}
	return &server{path: o.Path, every: o.KeepAlive, gate: gate.Options{Cover: o.Cover}}
}

// Name returns "compat".
func (s *server) Name() string { return Name }

// Match says whether r is a POST or GET of the path; no token is asked.
func (s *server) Match(r *http.Request) bool {
	if r.URL.Path != s.path || r.URL.RawPath != "" {
		return false
	}
	return r.Method == http.MethodPost || r.Method == http.MethodGet
}

// Serve answers one request. It returns when accept has, except for
// WebSockets.
func (s *server) Serve(w http.ResponseWriter, r *http.Request, accept func(net.Conn)) {
	if !s.Match(r) {
		s.gate.Refuse(w, r)
		return
	}
	mode := Select(r)
	if mode == WebSocket {
		s.webSocket(w, r, accept)
		return
	}
	c, conn := newExchange(s, mode, w, r)
	accept(conn)
	if c.end() {
		return
	}
	// Nothing was sent: the cover answers, from the request's first byte on.
	again := *r
	again.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(c.seen), r.Body), r.Body}
	s.gate.Refuse(w, &again)
}

// webSocket upgrades, CCP-1 section 5.4.
func (s *server) webSocket(w http.ResponseWriter, r *http.Request, accept func(net.Conn)) {
	switch {
	case r.Method != http.MethodGet:
		empty(w, http.StatusMethodNotAllowed)
		return
	case r.ProtoMajor != 1 || !ws.Upgrade(r) || r.Header.Get("Sec-Websocket-Version") != "13" ||
		!text(r.Header.Get("Sec-Websocket-Key")):
		empty(w, http.StatusBadRequest)
		return
	}
	stream, err := ws.Hijack(w, r, "X-CommuCat-Connect-Mode: websocket\r\n", &s.bufs)
	if stream == nil {
		empty(w, http.StatusBadRequest)
		return
	}
	if err != nil {
		_ = stream.NetConn().Close()
		return
	}
	stream.Text = func(message []byte) ([]byte, error) {
		return base64.StdEncoding.AppendDecode(nil, bytes.TrimSpace(message))
	}
	c := &socket{Conn: stream, facts: facts(r)}
	go func() {
		defer c.Finish()
		defer c.Close()
		accept(c)
	}()
}

// text says whether a header value is there and printable ASCII.
func text(v string) bool {
	for i := range len(v) {
		if v[i] < 0x20 || v[i] > 0x7e {
			return false
		}
	}
	return v != ""
}

func empty(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(status)
}

func facts(r *http.Request) transport.Facts {
	f := gate.Facts(Name, r)
	f.Entered, f.Compat = false, true
	return f
}

// socket is the server's end of a WebSocket: one message per unit.
type socket struct {
	*ws.Conn
	facts transport.Facts
}

// Path says who came and how.
func (c *socket) Path() transport.Facts { return c.facts }

// Write sends p as one message.
func (c *socket) Write(p []byte) (int, error) {
	if err := c.WriteMessage(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteFrame sends unit as one message.
func (c *socket) WriteFrame(_ string, _, _ uint32, unit []byte) error { return c.WriteMessage(unit) }
