package webtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/transport"
)

// Path and Cookie are what the tests' links say.
const (
	Path   = "/assets/9f3c61d2"
	Cookie = "sid"
)

// Site is a running server.
type Site struct {
	Addr       string
	Endpoint   transport.Endpoint
	Dial       transport.Dial
	Credential entry.Credential
	Verifier   *entry.Verifier
	Roots      *x509.CertPool
	Server     *http.Server
}

// Cover is the site that strangers see. It shows what it was asked and reads
// the body, so that a body touched before shows.
func Cover() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if r.URL.Path != "/" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprintf(w, "<p>%s %s: %d bytes\n", r.Method, r.URL.Path, n)
	})
}

// Start serves handler until the test ends. protocols are ALPN names, h2 and
// http/1.1 if none is given.
func Start(t testing.TB, handler func(*Site) http.Handler, protocols ...string) *Site {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "relay.example"},
		DNSNames: []string{"relay.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	master := make([]byte, 32)
	_, _ = rand.Read(master)
	s := &Site{
		Addr:       ln.Addr().String(),
		Credential: entry.New(master, time.Now().Add(time.Hour), rand.Reader),
		Verifier:   entry.NewVerifier(func() [][]byte { return [][]byte{master} }, nil),
		Roots:      x509.NewCertPool(),
	}
	s.Roots.AddCert(leaf)
	s.Endpoint = transport.Endpoint{
		Host: "127.0.0.1", Port: uint16(ln.Addr().(*net.TCPAddr).Port),
		Params: map[string]string{transport.ParamPath: Path, transport.ParamCookie: Cookie},
	}
	s.Dial = transport.Dial{Token: s.Token, Pins: [][32]byte{sha256.Sum256(leaf.RawSubjectPublicKeyInfo)}}
	if len(protocols) == 0 {
		protocols = []string{"h2", "http/1.1"}
	}
	s.Server = &http.Server{
		Handler:   handler(s),
		ErrorLog:  log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: protocols},
		Protocols: new(http.Protocols),
	}
	for _, p := range protocols {
		if p == "h2" {
			s.Server.Protocols.SetHTTP2(true)
		} else {
			s.Server.Protocols.SetHTTP1(true)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Server.ServeTLS(ln, "", "")
	}()
	t.Cleanup(func() {
		_ = s.Server.Close()
		<-done
	})
	return s
}

// Token makes a token for one request.
func (s *Site) Token(method, path, st string) string {
	return s.Credential.Token(method, path, st, time.Now(), rand.Reader)
}

// Mount gives what the front gives: the transport where it matches, else the
// cover.
func Mount(web transport.Web, accept func(net.Conn)) http.Handler {
	cover := Cover()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if web.Match(r) {
			web.Serve(w, r, accept)
			return
		}
		cover.ServeHTTP(w, r)
	})
}

// HTTP returns a client that trusts the site; h2 chooses HTTP/2.
func (s *Site) HTTP(t testing.TB, h2 bool) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.Roots}, Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetHTTP2(h2)
	tr.Protocols.SetHTTP1(!h2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// URL is the connect path's address.
func (s *Site) URL() string { return "https://" + s.Addr + Path }

// Dialer binds a client half to the site.
func (s *Site) Dialer(d transport.Dialer) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, s.Endpoint, s.Dial) }
}
