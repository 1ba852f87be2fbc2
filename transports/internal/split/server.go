package split

import (
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/gate"
)

// Times are the durations of a server; [DefaultTimes] are the protocol's.
type Times struct {
	// Hold is how long a long-poll waits for bytes, give or take HoldSpread.
	Hold, HoldSpread time.Duration
	// Life is how long an event stream lasts, give or take LifeSpread.
	Life, LifeSpread time.Duration
	// Comment is the silence after which an event stream sends a comment, give
	// or take CommentSpread.
	Comment, CommentSpread time.Duration
	// Idle is how long a stream without a request lives, Linger how long when its
	// session has ended and the client has all of it.
	Idle, Linger time.Duration
}

// DefaultTimes returns the protocol's durations.
func DefaultTimes() Times {
	return Times{
		Hold: 25 * time.Second, HoldSpread: 3 * time.Second,
		Life: 60 * time.Second, LifeSpread: 5 * time.Second,
		Comment: 20 * time.Second, CommentSpread: 5 * time.Second,
		Idle: 60 * time.Second, Linger: 3 * time.Second,
	}
}

// around draws from mean ± spread.
func around(mean, spread time.Duration) time.Duration {
	if spread <= 0 {
		return mean
	}
	return mean - spread + rand.N(2*spread+1)
}

// Server is the server half of both forms. It implements transport.Web and
// transport.Joiner.
type Server struct {
	name   string
	events bool
	gate   gate.Options
	times  Times
	chunks sync.Pool // *[]byte

	mu      sync.Mutex
	streams map[[16]byte]*stream
	places  places
}

// NewServer returns a server half; events chooses event streams instead of
// long-poll.
func NewServer(name string, events bool, g gate.Options, times Times) *Server {
	return &Server{name: name, events: events, gate: g, times: times, streams: make(map[[16]byte]*stream), places: make(places)}
}

// Name is the transport's name.
func (s *Server) Name() string { return s.name }

// Match says whether r has the shape of a request of ours: for a fetch the
// Accept header tells the two forms apart, for the others the stream must
// exist. The token is checked by Serve.
func (s *Server) Match(r *http.Request) bool {
	_, st, ok := s.gate.Stream(r)
	if !ok || !r.ProtoAtLeast(1, 1) {
		return false
	}
	switch st.Op {
	case entry.OpOpen, entry.OpDown:
		return r.Method == http.MethodGet && wantsEvents(r) == s.events
	default:
		return r.Method == http.MethodPost && s.find(st.ID) != nil
	}
}

func wantsEvents(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// Joins gives the stream that r names; see transport.Joiner.
func (s *Server) Joins(r *http.Request) net.Conn {
	if _, st, ok := s.gate.Stream(r); ok {
		if x := s.find(st.ID); x != nil {
			return x
		}
	}
	return nil
}

// Serve answers one request.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, accept func(net.Conn)) {
	value, st, ok := s.gate.Stream(r)
	get := st.Op == entry.OpOpen || st.Op == entry.OpDown
	if !ok || get != (r.Method == http.MethodGet) || !get && r.Method != http.MethodPost || !s.gate.Good(r, value) {
		s.gate.Refuse(w, r)
		return
	}
	x := s.find(st.ID)
	if x == nil && st.Op == entry.OpOpen && st.Offset == 0 {
		x = s.open(st.ID, r, accept)
	}
	if x == nil || !x.begin() {
		s.gate.Refuse(w, r)
		return
	}
	defer x.done()
	switch st.Op {
	case entry.OpOpen, entry.OpDown:
		s.down(w, r, x, st)
	case entry.OpUp:
		s.up(w, r, x, st.Offset)
	case entry.OpClose:
		s.close(w, x, st.Offset)
	}
}

func (s *Server) find(id [16]byte) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[id]
}

// open makes a stream and runs its session; nil if there are too many, of all
// or of its source.
func (s *Server) open(id [16]byte, r *http.Request, accept func(net.Conn)) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.streams[id]; x != nil {
		return x
	}
	from := sourcesOf(transport.ParseAddrPort(r.RemoteAddr).Addr())
	if len(s.streams) >= maxStreams || !s.places.take(from) {
		return nil
	}
	x := newStream(s, id, r)
	x.from = from
	s.streams[id] = x
	go func() {
		defer x.Close()
		accept(x)
	}()
	return x
}

func (s *Server) drop(x *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[x.id] == x {
		delete(s.streams, x.id)
		s.places.leave(x.from)
	}
}

// Streams counts the streams at hand.
func (s *Server) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// number answers with an offset.
func number(w http.ResponseWriter, status int, offset uint64) {
	body := strconv.FormatUint(offset, 10)
	gate.Headers(w.Header(), "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body))
}

// nothing answers 204.
func nothing(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusNoContent)
}

// close ends upstream at offset, or the stream.
func (s *Server) close(w http.ResponseWriter, x *stream, offset uint64) {
	if next, ok := x.finish(offset); !ok {
		number(w, http.StatusConflict, next)
		return
	}
	if offset == entry.Abandon {
		s.drop(x)
	}
	nothing(w)
}

// chunk lends a buffer of 16 KiB.
func (s *Server) chunk() *[]byte {
	if p, ok := s.chunks.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, 16<<10)
	return &p
}
