package reality

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	utls "github.com/refraction-networking/utls"
)

// look is what one handshake with a cover has shown.
type look struct {
	handshake time.Duration // TCP and TLS together
	hello     serverHello
	protocol  string // by ALPN
	// flight are the lengths of the records that answer the hello; early follow
	// before the client has finished, after once it has.
	flight, early, after []int
	certificate          *x509.Certificate
	trust                error // why the web would not believe the certificate; nil if it would
}

// Limits of an examination.
const (
	examineTime  = 20 * time.Second
	lookBytes    = 128 << 10
	shortestHush = 400 * time.Millisecond
	longestHush  = 3 * time.Second
	longestTail  = 5 * time.Second
)

// helloFor is Chrome's hello with another choice of protocols.
func helloFor(kind offered) (*utls.ClientHelloSpec, error) {
	spec, err := chromeSpec()
	if err != nil {
		return nil, err
	}
	if kind == offersHTTP2 {
		return &spec, nil
	}
	spec.Extensions = slices.DeleteFunc(spec.Extensions, func(e utls.TLSExtension) bool {
		switch e := e.(type) {
		case *utls.ALPNExtension:
			e.AlpnProtocols = []string{"http/1.1"}
			return kind == offersNone
		case *utls.ApplicationSettingsExtension, *utls.ApplicationSettingsExtensionNew:
			return true
		}
		return false
	})
	return &spec, nil
}

// examine shakes hands with a cover as a client of the given kind and looks at records.
func examine(ctx context.Context, c cover, name string, spec *utls.ClientHelloSpec, roots *x509.CertPool) (*look, error) {
	ctx, cancel := context.WithTimeout(ctx, examineTime)
	defer cancel()
	l := &look{}
	began := time.Now()
	raw, err := c.dial(ctx, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(aLongTimeAgo) })
	defer stop()
	t := &tap{Conn: raw, look: l, began: began}
	conn := utls.UClient(t, &utls.Config{
		ServerName: name, InsecureSkipVerify: true, SessionTicketsDisabled: true,
		VerifyPeerCertificate: func(chain [][]byte, _ [][]*x509.Certificate) error {
			l.certificate, l.trust = believe(chain, name, roots)
			return nil
		},
	}, utls.HelloCustom)
	if err := conn.ApplyPreset(spec); err != nil {
		return nil, err
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		if t.failed != nil {
			err = t.failed
		}
		if t.sort(); l.hello.retry || l.hello.tls13 && l.hello.group != groupX25519 && l.hello.group != groupHybrid {
			return l, nil // no imitation can go on after that, and it says enough
		}
		return l, fmt.Errorf("TLS handshake: %w", err)
	}
	l.protocol = conn.ConnectionState().NegotiatedProtocol
	at := len(t.in)
	t.listen(longestTail)
	l.after, _ = recordLengths(t.in[at:])
	return l, nil
}

// believe verifies a chain as a browser would.
func believe(chain [][]byte, name string, roots *x509.CertPool) (*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("no certificate")
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	rest := x509.NewCertPool()
	for _, b := range chain[1:] {
		if c, err := x509.ParseCertificate(b); err == nil {
			rest.AddCert(c)
		}
	}
	_, err = leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: rest})
	return leaf, err
}

// tap keeps what the cover sends. Before the client's second flight goes out it waits
// a little, to learn whether the cover says more than its own flight.
type tap struct {
	net.Conn
	look   *look
	began  time.Time
	in     []byte
	read   int // how much of in the client has got
	wrote  bool
	failed error
}

func (t *tap) Read(p []byte) (int, error) {
	if t.read < len(t.in) {
		n := copy(p, t.in[t.read:])
		t.read += n
		return n, nil
	}
	if len(t.in) > lookBytes {
		return 0, errors.New("the cover sends too much")
	}
	n, err := t.Conn.Read(p)
	t.in = append(t.in, p[:n]...)
	t.read += n
	return n, err
}

func (t *tap) Write(p []byte) (int, error) {
	if !t.wrote {
		t.wrote = true
		return t.Conn.Write(p)
	}
	if t.look.flight == nil {
		t.look.handshake = time.Since(t.began)
		t.listen(t.hush())
		t.sort()
	}
	return t.Conn.Write(p)
}

// hush is how long silence must last to be an end: several round trips.
func (t *tap) hush() time.Duration {
	return min(max(5*t.look.handshake, shortestHush), longestHush)
}

// listen reads until there is silence, for so long at most.
func (t *tap) listen(most time.Duration) {
	until := time.Now().Add(most)
	buf := make([]byte, 4096)
	for len(t.in) <= lookBytes {
		next := time.Now().Add(t.hush())
		if next.After(until) {
			next = until
		}
		_ = t.Conn.SetReadDeadline(next)
		n, err := t.Conn.Read(buf)
		t.in = append(t.in, buf[:n]...)
		if err != nil {
			break
		}
	}
	_ = t.Conn.SetReadDeadline(time.Time{})
}

// sort tells the cover's flight from what it sends early: ServerHello,
// ChangeCipherSpec, then either one large record or four messages.
func (t *tap) sort() {
	lengths, _ := recordLengths(t.in)
	if len(lengths) > 0 && t.in[0] == typeHandshake {
		if h, ok := parseServerHello(t.in[recordHeader:lengths[0]]); ok {
			t.look.hello = *h
		}
	}
	n := lastMessage
	if len(lengths) > 2 && lengths[2] > maxExtensions {
		n = 3
	}
	n = min(n, len(lengths))
	t.look.flight, t.look.early = lengths[:n], lengths[n:]
}

// maxExtensions is the largest record of EncryptedExtensions alone; the module takes a
// larger one for the whole flight.
const maxExtensions = 512

// page is the answer to a plain request for the first page.
type page struct {
	status   int
	location string
	date     time.Time
	took     time.Duration
	http3    bool // announced
}

// visitCover asks for the first page over a connection of its own.
func visitCover(ctx context.Context, c cover, name string, roots *x509.CertPool) (*page, error) {
	ctx, cancel := context.WithTimeout(ctx, examineTime)
	defer cancel()
	raw, err := c.dial(ctx, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	// Whether the certificate is good is judged elsewhere; here the page counts.
	conn := tls.Client(raw, &tls.Config{ServerName: name, RootCAs: roots, InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		ForceAttemptHTTP2: true,
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+"/", http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", chromeAgent)
	began := time.Now()
	answer, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	p := &page{status: answer.StatusCode, location: answer.Header.Get("Location"), took: time.Since(began)}
	p.date, _ = http.ParseTime(answer.Header.Get("Date"))
	p.http3 = slices.ContainsFunc(answer.Header.Values("Alt-Svc"), func(v string) bool { return strings.Contains(v, "h3=") })
	_, _ = io.CopyN(io.Discard, answer.Body, lookBytes)
	return p, nil
}
