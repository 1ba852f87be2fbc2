package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/transport"
)

// The cover site is lent over HTTP/2 without TLS on a socketpair. What the request
// line and the connection said stands in header fields that no client can send:
// their names hold a space-less prefix that is removed from every request first.
const (
	coverPrefix = "Commucat-Cover-"
	coverRemote = coverPrefix + "Remote"
	coverProto  = coverPrefix + "Proto"
	coverTLS    = coverPrefix + "Tls"
	coverURI    = coverPrefix + "Uri"
)

// What a plugin may have of the site at once: CoverStreams connections of
// coverRequests requests each. One is enough for most; another takes over where that is
// full or ends.
const (
	CoverStreams  = 8
	coverRequests = 500
)

// An idle connection is ended by the plugin after coverIdle, and by the host after twice
// that: then one that the plugin has lost is free again.
const coverIdle = time.Minute

// CoverClient is the cover site as a handler: it passes requests on as they came and
// answers what the site answers: status, header, body as it comes, trailers.
type CoverClient struct {
	transport *http.Transport
}

// NewCoverClient makes the handler; dial gets a fresh stream to the site.
func NewCoverClient(dial func(context.Context) (net.Conn, error)) *CoverClient {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return &CoverClient{&http.Transport{
		Protocols: p, DisableCompression: true, IdleConnTimeout: coverIdle,
		// One dial at a time, whose connection serves all who wait for it. Where it is
		// full it does not count, and another is dialled.
		MaxConnsPerHost: 1,
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}
}

// Close gives the stream back.
func (c *CoverClient) Close() { c.transport.CloseIdleConnections() }

// ServeHTTP implements http.Handler.
func (c *CoverClient) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := r.Clone(r.Context())
	out.RequestURI = ""
	out.Close = false // says something of the client's connection alone; here it would end that of all
	out.URL = &url.URL{Scheme: "http", Host: "cover", Opaque: r.URL.Opaque, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery}
	for name := range out.Header {
		if strings.HasPrefix(name, coverPrefix) {
			out.Header.Del(name)
		}
	}
	dropHops(out.Header)
	if r.Header.Get("Te") == "trailers" {
		out.Header.Set("Te", "trailers")
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // Transport would write its own
	}
	out.Header.Set(coverRemote, r.RemoteAddr)
	out.Header.Set(coverProto, r.Proto)
	out.Header.Set(coverURI, r.RequestURI)
	if r.TLS != nil {
		out.Header.Set(coverTLS, r.TLS.ServerName+" ")
	}
	if r.ContentLength == 0 {
		out.Body = nil
	}
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 and 3 are
	in, err := c.transport.RoundTrip(out)
	if err != nil {
		if r.Context().Err() == nil {
			w.WriteHeader(http.StatusBadGateway)
		}
		return
	}
	defer in.Body.Close()
	answer(w, in)
}

func answer(w http.ResponseWriter, in *http.Response) {
	h := w.Header()
	for name, values := range in.Header {
		h[name] = values
	}
	// What the site left out stays out.
	for _, name := range []string{"Date", "Content-Type"} {
		if _, ok := h[name]; !ok {
			h[name] = nil
		}
	}
	for name := range in.Trailer {
		h.Add("Trailer", name)
	}
	w.WriteHeader(in.StatusCode)
	flush := http.NewResponseController(w)
	if in.ContentLength < 0 && in.Body != http.NoBody {
		_ = flush.Flush() // as the site did
	}
	var buf [8 << 10]byte
	for {
		n, err := in.Body.Read(buf[:])
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return
			}
			_ = flush.Flush()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			panic(http.ErrAbortHandler) // the answer was cut off; so is this one
		}
	}
	for name, values := range in.Trailer {
		h[name] = values
	}
}

// hops are the fields of one connection (RFC 9110 section 7.6.1).
var hops = [...]string{"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

func dropHops(h http.Header) {
	for _, v := range h.Values("Connection") {
		for name := range strings.SplitSeq(v, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hops {
		h.Del(name)
	}
}

// ServeCover serves the cover site on a stream until that ends.
func ServeCover(conn net.Conn, site http.Handler) {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	l := &single{conn: conn, closed: make(chan struct{})}
	s := &http.Server{
		Handler: restore(site), Protocols: p, ErrorLog: log.New(io.Discard, "", 0),
		ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * coverIdle,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: coverRequests},
	}
	s.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			l.Close()
		}
	}
	_ = s.Serve(l)
	conn.Close()
}

// restore gives the request back what the carrying connection changed.
func restore(site http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = r.Header.Get(coverRemote)
		r.RequestURI = r.Header.Get(coverURI)
		if proto := r.Header.Get(coverProto); proto != "" {
			if major, minor, ok := http.ParseHTTPVersion(proto); ok {
				r.Proto, r.ProtoMajor, r.ProtoMinor = proto, major, minor
			}
		}
		if name := r.Header.Get(coverTLS); name != "" {
			r.TLS = &tls.ConnectionState{ServerName: strings.TrimSpace(name), HandshakeComplete: true, Version: tls.VersionTLS13}
		}
		for name := range r.Header {
			if strings.HasPrefix(name, coverPrefix) {
				r.Header.Del(name)
			}
		}
		site.ServeHTTP(w, r)
	})
}

// single is a listener with one conn.
type single struct {
	mu     sync.Mutex
	conn   net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *single) Accept() (net.Conn, error) {
	l.mu.Lock()
	c := l.conn
	l.conn = nil
	l.mu.Unlock()
	if c != nil {
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *single) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *single) Addr() net.Addr { return transport.Addr{Net: "cover", Text: "cover"} }
