package masque

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	tls "github.com/refraction-networking/utls"
	"golang.org/x/net/http2"
)

// hello is the ClientHello of a fingerprint. QUIC has crypto/tls's whatever is
// asked for: quic-go can do no other.
func hello(name string) (tls.ClientHelloID, error) {
	switch name {
	case "", "chrome":
		return tls.HelloChrome_Auto, nil
	case "edge":
		return tls.HelloEdge_Auto, nil
	case "firefox":
		return tls.HelloFirefox_Auto, nil
	case "safari":
		return tls.HelloSafari_Auto, nil
	case "ios":
		return tls.HelloIOS_Auto, nil
	case "go":
		return tls.HelloGolang, nil
	}
	return tls.ClientHelloID{}, bad(fmt.Sprintf("unknown TLS fingerprint %q", name))
}

// overTCP opens the stream over HTTP/2 on the same authority.
func (d *dialer) overTCP(ctx context.Context) (net.Conn, error) {
	conn, err := d.tls(ctx)
	if err != nil {
		return nil, fmt.Errorf("tcp: %w", err)
	}
	c, err := d.overH2(ctx, conn)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("tcp: %w", err)
	}
	return c, nil
}

// askTCP says whether the site answers over TCP.
func (d *dialer) askTCP(ctx context.Context) error {
	c, err := d.tls(ctx)
	if err != nil {
		return err
	}
	return c.Close()
}

// tls connects and finishes the handshake.
func (d *dialer) tls(ctx context.Context) (*tls.UConn, error) {
	id, err := hello(d.with.Fingerprint)
	if err != nil {
		return nil, err
	}
	dial := d.with.DialTCP
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	tcp, err := dial(ctx, "tcp", d.address())
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: strings.Trim(d.inv.host, "[]"), NextProtos: []string{"h2", "http/1.1"},
		RootCAs: d.with.Roots, InsecureSkipVerify: d.with.Insecure || len(d.inv.pins) > 0,
	}
	if !d.with.Insecure && len(d.inv.pins) > 0 {
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) > 0 && slices.Contains(d.inv.pins, sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo)) {
				return nil
			}
			return errPin
		}
	}
	conn := tls.UClient(tcp, c, id)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = tcp.Close()
		return nil, err
	}
	// A browser's hello speaks of renegotiation, with which nothing is exported; TLS 1.3
	// has none.
	c.Renegotiation = tls.RenegotiateNever
	if s := conn.ConnectionState(); s.NegotiatedProtocol != "h2" || s.Version != tls.VersionTLS13 {
		_ = conn.Close()
		return nil, errors.New("the server offers no HTTP/2 over TLS 1.3")
	}
	return conn, nil
}

// overH2 sends the CONNECT: the extended one where the mode asks for it, else the
// classic one, which every HTTP/2 server knows.
func (d *dialer) overH2(ctx context.Context, conn *tls.UConn) (net.Conn, error) {
	state := conn.ConnectionState()
	protocol := d.protocol()
	r, err := d.request(ctx, state.ExportKeyingMaterial, protocol)
	if err != nil {
		return nil, err
	}
	if protocol != "" {
		r.Header[":protocol"] = []string{protocol}
	} else {
		r.URL = &url.URL{Scheme: "https", Host: r.Host}
	}
	r.Proto = ""
	up, body := net.Pipe()
	r.Body, r.ContentLength = body, -1
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	cc, err := (&http2.Transport{DisableCompression: true, MaxReadFrameSize: 16 << 10, ReadIdleTimeout: 30 * time.Second}).NewClientConn(conn)
	if err != nil {
		end()
		return nil, err
	}
	stop := context.AfterFunc(ctx, end)
	resp, err := cc.RoundTrip(r.WithContext(life))
	if !stop() {
		err = context.Cause(ctx)
	}
	if err == nil {
		if err = d.accepted(resp); err != nil {
			_ = resp.Body.Close()
		}
	}
	if err != nil {
		end()
		_ = up.Close()
		return nil, err
	}
	c := newH2Client(conn, resp.Body, up, end)
	if protocol != "" {
		return newMessages(c, true), nil
	}
	return c, nil
}

// h2Client is the client's end of a CONNECT stream over HTTP/2. Bytes pass through a
// pipe each way, which has the deadlines that a request's body lacks.
type h2Client struct {
	conn     net.Conn
	up, down net.Conn
	over     chan struct{} // closed by Close
	closed   atomic.Bool
	failed   atomic.Pointer[error] // how the relay's side ended, if not well
}

func newH2Client(conn net.Conn, body io.ReadCloser, up net.Conn, end func()) *h2Client {
	down, pump := net.Pipe()
	c := &h2Client{conn: conn, up: up, down: down, over: make(chan struct{})}
	go func() {
		_, err := io.Copy(struct{ io.Writer }{pump}, struct{ io.Reader }{body})
		if c.closed.Load() {
			// The last bytes that were written may be on their way until the relay
			// has ended its side.
			timer := time.AfterFunc(lingerTime, end)
			_, _ = io.CopyN(io.Discard, body, lingerBytes)
			timer.Stop()
		} else if err != nil {
			c.failed.Store(&err)
		}
		_ = pump.Close()
		_ = body.Close()
		<-c.over
		end()
		_ = conn.Close()
	}()
	return c
}

// Read implements net.Conn.
func (c *h2Client) Read(p []byte) (int, error) {
	n, err := c.down.Read(p)
	return n, c.plain(err)
}

// Write implements net.Conn.
func (c *h2Client) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.up.Write(p)
	if err == io.ErrClosedPipe && !c.closed.Load() {
		err = net.ErrClosed // by CloseWrite, or the relay has ended the stream
	}
	return n, c.plain(err)
}

// plain gives the errors of the pipes the values that a net.Conn has.
func (c *h2Client) plain(err error) error {
	switch {
	case err == nil:
		return nil
	case c.closed.Load():
		return net.ErrClosed
	case err == io.EOF:
		if failed := c.failed.Load(); failed != nil {
			return *failed
		}
	}
	return err
}

// CloseWrite implements transport.CloseWriter.
func (c *h2Client) CloseWrite() error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.up.Close()
}

// Close implements net.Conn: what was written arrives, then the end; the connection
// closes when the relay has ended its side, or after a while.
func (c *h2Client) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	_, _ = c.up.Close(), c.down.Close()
	close(c.over)
	return nil
}

// LocalAddr implements net.Conn.
func (c *h2Client) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *h2Client) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *h2Client) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *h2Client) SetReadDeadline(t time.Time) error { return c.plain(c.down.SetReadDeadline(t)) }

// SetWriteDeadline implements net.Conn.
func (c *h2Client) SetWriteDeadline(t time.Time) error { return c.plain(c.up.SetWriteDeadline(t)) }
