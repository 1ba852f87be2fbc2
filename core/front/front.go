package front

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/commucat/commucat/core/admission"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/sdk/transport"
)

// API is the REST interface. Match must not read the body; what it does not
// match goes to the cover.
type API interface {
	http.Handler
	Match(r *http.Request) bool
}

// Options configure a Front. Certificates and Cover are required.
type Options struct {
	// Name is the transport name that admission counts connections under;
	// "https" if empty.
	Name string
	// Certificates gives the certificate for each handshake.
	Certificates Certificates
	// Admission is asked at accept; nil admits all.
	Admission *admission.Gate
	// Cover answers whatever is not ours. It is wrapped with Site.
	Cover http.Handler
	// AltSvc is the value of the Alt-Svc header of every answer (RFC 7838); "" for none.
	AltSvc string
	// Webs are asked in order.
	Webs []transport.Web
	// API may be nil.
	API API
	// Accept runs a session on a connection from one of Webs, to its end.
	Accept func(net.Conn)

	// HeaderTimeout bounds the TLS handshake and each request's header (10 s),
	// IdleTimeout an idle connection (75 s), StallTimeout a write that does not
	// advance (60 s), DrainTimeout the end of Serve (10 s).
	HeaderTimeout time.Duration
	IdleTimeout   time.Duration
	StallTimeout  time.Duration
	DrainTimeout  time.Duration
	// MaxHeader bounds a request's header in bytes (32 KiB).
	MaxHeader int
	// MaxStreams bounds the concurrent streams of an HTTP/2 connection (100).
	MaxStreams int
	// StreamWindow is the HTTP/2 upload window of a stream and of a connection
	// in bytes (1 MiB); it costs memory only while a reader is behind.
	StreamWindow int

	Log     *slog.Logger
	Metrics *metrics.Set
}

// Errors of New.
var (
	ErrNoCover       = errors.New("front: no cover site")
	ErrNoCertificate = errors.New("front: no certificate")
)

// Front serves the public port. Its methods may be called concurrently, Serve
// once.
type Front struct {
	opt      Options
	cover    http.Handler
	server   *http.Server
	sessions tracker
}

// New checks the options and makes a Front.
func New(opt Options) (*Front, error) {
	if opt.Cover == nil {
		return nil, ErrNoCover
	}
	if opt.Certificates == nil {
		return nil, ErrNoCertificate
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Name == "" {
		opt.Name = "https"
	}
	defaultTo(&opt.HeaderTimeout, 10*time.Second)
	defaultTo(&opt.IdleTimeout, 75*time.Second)
	defaultTo(&opt.StallTimeout, 60*time.Second)
	defaultTo(&opt.DrainTimeout, 10*time.Second)
	defaultTo(&opt.MaxHeader, 32<<10)
	defaultTo(&opt.MaxStreams, 100)
	defaultTo(&opt.StreamWindow, 1<<20)
	f := &Front{opt: opt, cover: Site(opt.Cover)}
	f.server = &http.Server{
		Handler:           f,
		TLSConfig:         tlsConfig(opt.Certificates),
		ReadHeaderTimeout: opt.HeaderTimeout,
		IdleTimeout:       opt.IdleTimeout,
		MaxHeaderBytes:    opt.MaxHeader,
		ConnContext:       connContext,
		ErrorLog:          errorLog(opt.Log),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          opt.MaxStreams,
			MaxReadFrameSize:              16 << 10, // a reader keeps its largest frame's buffer
			MaxReceiveBufferPerStream:     opt.StreamWindow,
			MaxReceiveBufferPerConnection: opt.StreamWindow,
			WriteByteTimeout:              opt.StallTimeout,
		},
	}
	return f, nil
}

func defaultTo[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// tlsConfig allows TLS 1.3 alone, the hybrid key agreement first.
func tlsConfig(c Certificates) *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
		NextProtos:       []string{"h2", "http/1.1"},
		GetCertificate:   c.GetCertificate,
	}
}

// Serve answers on all listeners until ctx ends, then drains: the listeners
// close, idle connections close, HTTP/2 connections are told to go away, and
// running sessions have DrainTimeout to end. It returns nil after a drain and
// the first listener's error otherwise. The listeners are closed in any case.
func (f *Front) Serve(ctx context.Context, listeners []net.Listener) error {
	if len(listeners) == 0 {
		return errors.New("front: no listener")
	}
	failed := make(chan error, len(listeners))
	var running sync.WaitGroup
	for _, l := range listeners {
		running.Go(func() {
			err := f.server.Serve(newSecure(&listener{Listener: l, front: f}, f.server.TLSConfig, f.opt.HeaderTimeout, f.opt.Log))
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	f.drain()
	running.Wait()
	return err
}

// drain must not use Serve's context, which has ended.
func (f *Front) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), f.opt.DrainTimeout)
	defer cancel()
	_ = f.server.Shutdown(ctx)
	select {
	case <-f.sessions.idle():
	case <-ctx.Done():
	}
	_ = f.server.Close()
}

// ServeHTTP chooses who answers.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.opt.AltSvc != "" {
		w.Header().Set("Alt-Svc", f.opt.AltSvc)
	}
	for _, web := range f.opt.Webs {
		if web.Match(r) {
			f.serveWeb(w, r, web)
			return
		}
	}
	if f.opt.API != nil && f.opt.API.Match(r) {
		f.opt.API.ServeHTTP(w, f.identify(r))
		return
	}
	f.opt.Metrics.Count(metrics.CoverHits, "request")
	f.cover.ServeHTTP(w, r)
}

// serveWeb charges the stream and hands it over. A source that has too many
// unauthenticated streams gets what a stranger gets.
func (f *Front) serveWeb(w http.ResponseWriter, r *http.Request, web transport.Web) {
	var ticket *admission.Ticket
	session, joins := joined(web, r)
	if joins && session.Proven() {
		admission.FromContext(r.Context()).Authenticated() // nor is its connection a stranger's
	} else {
		var err error
		if ticket, err = f.charge(r, joins); err != nil {
			f.opt.Metrics.Count(metrics.CoverHits, "busy")
			f.cover.ServeHTTP(w, r)
			return
		}
		defer ticket.Release()
		r = r.WithContext(admission.NewContext(r.Context(), ticket))
	}
	web.Serve(w, f.identify(r), func(conn net.Conn) {
		ticket.Hold()
		defer ticket.Release()
		f.sessions.add(1)
		defer f.sessions.add(-1)
		f.opt.Metrics.Count(metrics.AcceptedConnections, web.Name())
		f.opt.Accept(conn)
	})
}

// joined gives the ticket of the session that r carries bytes of. Such a request opens
// nothing, and once its session has proved its device it costs no place among the
// unauthenticated: an event stream or long-poll that lasts for days would hold one for
// ever. What it names is as secret as its token, which is checked afterwards.
func joined(web transport.Web, r *http.Request) (*admission.Ticket, bool) {
	j, ok := web.(transport.Joiner)
	if !ok {
		return nil, false
	}
	conn := j.Joins(r)
	if conn == nil {
		return nil, false
	}
	return admission.FromContext(transport.FactsOf(conn).Context), true
}

// charge makes a ticket for one stream, or one more request of it: of the connection's own sources, or of
// the client that a trusted proxy names.
func (f *Front) charge(r *http.Request, joins bool) (*admission.Ticket, error) {
	g := f.opt.Admission
	if g == nil {
		return nil, nil
	}
	peer := address(r)
	if !g.Trusts(peer) {
		if joins {
			return admission.FromContext(r.Context()).Request()
		}
		return admission.FromContext(r.Context()).Stream()
	}
	client, hidden := g.Client(peer, r.Header)
	return g.Admit(admission.Source{Transport: f.opt.Name, Addr: client, Hidden: hidden})
}

// identify puts the client's address in RemoteAddr where a trusted proxy names
// it; the port is unknown then (0).
func (f *Front) identify(r *http.Request) *http.Request {
	g := f.opt.Admission
	if g == nil {
		return r
	}
	peer := address(r)
	client, hidden := g.Client(peer, r.Header)
	if client == peer && !hidden {
		return r
	}
	r = r.WithContext(r.Context())
	r.RemoteAddr = netip.AddrPortFrom(client, 0).String()
	if hidden {
		r.RemoteAddr = ""
	}
	return r
}

func address(r *http.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr().Unmap().WithZone("")
}
