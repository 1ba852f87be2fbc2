package transport

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Facts are what a transport knows about an accepted connection. A zero field
// means "unknown".
type Facts struct {
	// Transport is the name that lists and metrics show.
	Transport string
	// Remote is the client's address, if the transport can see it.
	Remote netip.AddrPort
	// Circuit identifies a hidden source (an onion circuit, a fronted stream).
	Circuit string
	// Hidden says that Remote is not the client's own address.
	Hidden bool
	// Compat says that the connection arrived on the reference's connect path.
	Compat bool
	// Entered says that a valid entry token was shown before the first byte.
	Entered bool
	// UserAgent is the request's header, at most 256 bytes; HTTP only.
	UserAgent string
	// Context carries values that the listener attached to the connection
	// (admission); never nil after FactsOf.
	Context context.Context
}

// PathFacts may be implemented by an accepted net.Conn.
type PathFacts interface{ Path() Facts }

// CloseWriter is half-close: the peer reads end of stream, and may go on
// sending.
type CloseWriter interface{ CloseWrite() error }

// FrameWriter is implemented by connections whose wire repeats the header of
// each frame (the reference's SSE and NDJSON forms). The session then writes
// one unit at a time: unit is the whole clear frame, or the record that holds
// it; the other arguments are the frame's clear header.
type FrameWriter interface {
	WriteFrame(label string, channel, sequence uint32, unit []byte) error
}

// Withheld is implemented by connections that have not yet answered their
// client (the reference's connect path): nothing goes out before the first
// Write, and Refuse hands the request to the cover site instead.
type Withheld interface{ Refuse() }

// Web is the server half of a transport that shares the public HTTP port. It
// is mounted by the front; Match must be cheap and must not read the body.
type Web interface {
	Name() string
	Match(r *http.Request) bool
	// Serve answers one request. accept runs the session on conn and returns
	// when the session is over; it may be called on another goroutine when
	// the conn outlives the request. A request that turns out not to be ours
	// is handed to the cover with its body unread.
	Serve(w http.ResponseWriter, r *http.Request, accept func(net.Conn))
}

// Joiner may be implemented by a Web whose conns are carried by many requests.
type Joiner interface {
	// Joins answers the accepted conn that r belongs to by its shape, nil if
	// there is none. It neither reads the body nor checks the token: Serve does.
	Joins(r *http.Request) net.Conn
}

// Endpoint is an address of a relay by one transport, as links carry it.
type Endpoint struct {
	Transport string
	Host      string
	Port      uint16
	// Params are the transport's own parameters, named by the Param constants.
	Params map[string]string
}

// Parameters of the transports that go over HTTP.
const (
	// ParamPath is the connect path, "/connect" if absent.
	ParamPath = "path"
	// ParamCookie is the name of the cookie that holds the entry token.
	ParamCookie = "ck"
	// ParamName is the server name in the TLS hello and the certificate, if it
	// is not Host.
	ParamName = "sni"
	// ParamHost is the HTTP authority, if it is not Host and Port.
	ParamHost = "host"
)

// Dial is what a dialler needs beside the endpoint.
type Dial struct {
	// Token makes the entry token for one request; nil where the relay has none
	// (the reference's connect path). st is the split-stream part or "".
	Token func(method, path, st string) string
	// ServerTime is told each Date header seen, so that tokens use the
	// server's clock; may be nil.
	ServerTime func(time.Time)
	// Pins are SHA-256 hashes of the TLS key (SPKI) that replace the web roots.
	Pins [][32]byte
	// Roots verify the certificate where there are no Pins; nil means the
	// system's. Set them with Trust: a plugin in another process is given
	// RootCertificates, and refuses a dial that has Roots without them.
	Roots *x509.CertPool
	// RootCertificates are what Roots consists of.
	RootCertificates []*x509.Certificate
	// Insecure skips verification of the certificate: only by explicit choice.
	Insecure bool
	// Fingerprint names the ClientHello ("chrome" by default).
	Fingerprint string
	// Key is the device's private key for this transport (see KeyMaker); nil
	// where it has none.
	Key []byte
	// DialTCP opens the carrier; nil means a net.Dialer.
	DialTCP func(ctx context.Context, network, address string) (net.Conn, error)
}

// Trust has the relay's certificate verified with these roots in place of the
// system's.
func (d *Dial) Trust(roots ...*x509.Certificate) {
	d.Roots, d.RootCertificates = x509.NewCertPool(), roots
	for _, c := range roots {
		d.Roots.AddCert(c)
	}
}

// Dialer is the client half of a transport.
type Dialer interface {
	Name() string
	// Dial returns a stream to the relay. ctx bounds the dial alone, not the
	// life of the stream.
	Dial(ctx context.Context, to Endpoint, with Dial) (net.Conn, error)
}
