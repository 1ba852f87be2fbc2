package front

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/commucat/commucat/core/admission"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/sdk/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// makePEM makes a self-signed pair; serial tells one from another.
func makePEM(t testing.TB, serial int64) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "relay.example"}, DNSNames: []string{"relay.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	kb, _ := x509.MarshalPKCS8PrivateKey(k)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kb})
}

func static(t testing.TB) *Static {
	c, k := makePEM(t, 1)
	pair, err := tls.X509KeyPair(c, k)
	if err != nil {
		t.Fatal(err)
	}
	return (*Static)(&pair)
}

// page is a cover site that shows what it was asked.
var page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	if r.URL.Path != "/" {
		w.WriteHeader(404)
	}
	_, _ = io.WriteString(w, "site "+r.Method+"\n")
})

// fakeWeb is ours when the cookie is right; it upgrades to an echo over the
// request's body and answer.
type fakeWeb struct{ cover http.Handler }

func (fakeWeb) Name() string { return "fake" }

func (fakeWeb) Match(r *http.Request) bool {
	c, err := r.Cookie("sid")
	return err == nil && r.URL.Path == "/connect" && len(c.Value) == 48
}

func (f fakeWeb) Serve(w http.ResponseWriter, r *http.Request, accept func(net.Conn)) {
	if c, _ := r.Cookie("sid"); c.Value != good {
		f.cover.ServeHTTP(w, r)
		return
	}
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex()
	w.WriteHeader(200)
	_ = rc.Flush()
	accept(&fakeConn{w: w, rc: rc, body: r.Body, facts: transport.Facts{
		Transport: "fake", Remote: transport.ParseAddrPort(r.RemoteAddr), Context: context.WithoutCancel(r.Context()),
	}})
}

var good = strings.Repeat("g", 48)

type fakeConn struct {
	net.Conn
	w     http.ResponseWriter
	rc    *http.ResponseController
	body  io.ReadCloser
	facts transport.Facts
}

func (c *fakeConn) Read(b []byte) (int, error) { return c.body.Read(b) }
func (c *fakeConn) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	if err == nil {
		err = c.rc.Flush()
	}
	return n, err
}
func (c *fakeConn) Close() error          { return c.body.Close() }
func (c *fakeConn) Path() transport.Facts { return c.facts }

type fakeAPI struct{ http.Handler }

func (fakeAPI) Match(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path, "/api/") && r.Header.Get("Authorization") == "Bearer "+good
}

type running struct {
	addr  string
	front *Front
	stop  func()
}

// start serves opt on loopback until the test ends.
func start(t testing.TB, opt Options) running {
	t.Helper()
	if opt.Certificates == nil {
		opt.Certificates = static(t)
	}
	if opt.Cover == nil {
		opt.Cover = page
	}
	if opt.DrainTimeout == 0 {
		opt.DrainTimeout = 2 * time.Second
	}
	f, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, []net.Listener{l}) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return running{l.Addr().String(), f, stop}
}

func client(t testing.TB, http2 bool) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: http2}
	if !http2 {
		tr.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func TestOrderOfMatching(t *testing.T) {
	api := fakeAPI{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "api") })}
	m := metrics.New(metrics.Options{})
	s := start(t, Options{
		Webs: []transport.Web{fakeWeb{cover: Site(page)}}, API: api, Metrics: m, Admission: admission.New(admission.Options{}),
		Accept: func(c net.Conn) { _, _ = io.Copy(c, c) }, AltSvc: `h3=":443"`,
	})
	for _, h2 := range []bool{false, true} {
		c := client(t, h2)
		for _, tc := range []struct{ name, method, path, cookie, bearer, want string }{
			{"cover", "GET", "/", "", "", "200 site GET\n"},
			{"cover of another path", "POST", "/connect", "", "", "404 site POST\n"},
			{"transport", "POST", "/connect", good, "", "200 hello"},
			{"bad token", "POST", "/connect", strings.Repeat("x", 48), "", "404 site POST\n"},
			{"rest", "GET", "/api/devices", "", good, "200 api"},
			{"rest without token", "GET", "/api/devices", "", "x", "404 site GET\n"},
		} {
			r, _ := http.NewRequest(tc.method, "https://"+s.addr+tc.path, strings.NewReader("hello"))
			if tc.cookie != "" {
				r.Header.Set("Cookie", "sid="+tc.cookie)
			}
			if tc.bearer != "" {
				r.Header.Set("Authorization", "Bearer "+tc.bearer)
			}
			res, err := c.Do(r)
			if err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if got := res.Status[:3] + " " + string(b); got != tc.want {
				t.Errorf("%s (h2=%v): %q, want %q", tc.name, h2, got, tc.want)
			}
			if res.Header.Get("Server") != "" || res.Header.Get("Date") == "" || res.Header.Get("Alt-Svc") != `h3=":443"` {
				t.Errorf("%s: headers %v", tc.name, res.Header)
			}
		}
	}
}

// TestTicketTravels: the connection's ticket reaches the session, and one proof
// frees the connection's and the stream's place.
func TestTicketTravels(t *testing.T) {
	g := admission.New(admission.Options{})
	got := make(chan *admission.Ticket, 1)
	release := make(chan struct{})
	s := start(t, Options{
		Admission: g, Webs: []transport.Web{fakeWeb{cover: page}},
		Accept: func(c net.Conn) {
			k := admission.FromContext(c.(transport.PathFacts).Path().Context)
			_, known := k.Unsent()
			if !known {
				t.Error("the socket is unknown")
			}
			got <- k
			<-release
		},
	})
	c := client(t, true)
	r, _ := http.NewRequest("POST", "https://"+s.addr+"/connect", nil)
	r.Header.Set("Cookie", "sid="+good)
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	k := <-got
	if n := g.Stats().Open; n != 2 {
		t.Errorf("open = %d, want connection and stream", n)
	}
	k.Authenticated()
	if n := g.Stats().Open; n != 0 {
		t.Errorf("open = %d after authentication", n)
	}
	close(release)
	res.Body.Close()
	c.CloseIdleConnections()
	s.stop()
	if n := g.Stats().Open; n != 0 {
		t.Errorf("open = %d at the end", n)
	}
}

// pollWeb carries one conn by many requests: the first opens it, the others wait.
type pollWeb struct {
	in   chan struct{} // a request has come
	hold chan struct{} // closed: they are answered

	mu   sync.Mutex
	conn *fakeConn
}

func (*pollWeb) Name() string               { return "poll" }
func (*pollWeb) Match(r *http.Request) bool { return r.URL.Path == "/poll" }
func (p *pollWeb) Joins(*http.Request) net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil {
		return nil
	}
	return p.conn
}

func (p *pollWeb) Serve(w http.ResponseWriter, r *http.Request, accept func(net.Conn)) {
	defer w.WriteHeader(200)
	p.in <- struct{}{}
	if p.Joins(r) != nil {
		<-p.hold
		return
	}
	p.mu.Lock()
	p.conn = &fakeConn{facts: transport.Facts{Transport: "poll", Hidden: true, Context: context.WithoutCancel(r.Context())}}
	p.mu.Unlock()
	go accept(p.conn)
}

// TestProvenSessionNeedsNoPlace: the requests of a session that has proved its device
// hold no place among the unauthenticated, however long they wait.
func TestProvenSessionNeedsNoPlace(t *testing.T) {
	// Of the rate there is enough for one connection with one session. The address is
	// this machine's, which has 256 times as much.
	g := admission.New(admission.Options{Local: 1, Narrow: admission.Budget{Open: 4, Burst: 1, Rate: 1e-3}})
	web := &pollWeb{in: make(chan struct{}), hold: make(chan struct{})}
	got, end := make(chan *admission.Ticket, 1), make(chan struct{})
	s := start(t, Options{Admission: g, Webs: []transport.Web{web}, Accept: func(c net.Conn) {
		got <- admission.FromContext(transport.FactsOf(c).Context)
		<-end
	}})
	c := client(t, true)
	var requests sync.WaitGroup
	ask := func() {
		answered := make(chan struct{})
		requests.Go(func() {
			defer close(answered)
			res, err := c.Get("https://" + s.addr + "/poll")
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
		})
		select {
		case <-web.in:
		case <-answered:
			t.Error("a request got the cover's answer")
		}
	}
	ask()
	k := <-got
	requests.Wait()
	if n := g.Stats().Open; n != 2 {
		t.Errorf("open = %d, want connection and session", n)
	}
	ask() // of a session without proof
	if n := g.Stats().Open; n != 3 {
		t.Errorf("open = %d, want one more", n)
	}
	k.Authenticated()
	for range 10 {
		ask()
	}
	if n := g.Stats().Open; n != 1 {
		t.Errorf("open = %d, want the request from before the proof", n)
	}
	close(web.hold)
	requests.Wait()
	close(end)
	s.stop()
	if n := g.Stats().Open; n != 0 {
		t.Errorf("open = %d at the end", n)
	}
}

func TestTrustedProxyNamesTheClient(t *testing.T) {
	g := admission.New(admission.Options{Trusted: prefixes("127.0.0.0/8"), Narrow: admission.Budget{Burst: 3, Rate: .001}})
	addrs := make(chan string, 16)
	s := start(t, Options{Admission: g, Webs: []transport.Web{fakeWeb{cover: page}}, Accept: func(c net.Conn) {
		addrs <- c.(transport.PathFacts).Path().Remote.Addr().String()
	}})
	c := client(t, true)
	ask := func(forwarded string) string {
		r, _ := http.NewRequest("POST", "https://"+s.addr+"/connect", nil)
		r.Header.Set("Cookie", "sid="+good)
		r.Header.Set("X-Forwarded-For", forwarded)
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != 200 {
			return res.Status
		}
		return <-addrs
	}
	for range 3 {
		if got := ask("1.1.1.1, 198.51.100.4"); got != "198.51.100.4" {
			t.Fatalf("got %s", got)
		}
	}
	if got := ask("198.51.100.4"); got != "404 Not Found" {
		t.Errorf("over the client's budget: %s", got)
	}
	if got := ask("198.51.200.4"); got != "198.51.200.4" {
		t.Errorf("another client: %s", got)
	}
}

// TestW31SlowRequests: header, body and idle time are bounded.
func TestW31SlowRequests(t *testing.T) {
	s := start(t, Options{HeaderTimeout: 300 * time.Millisecond, IdleTimeout: 300 * time.Millisecond})
	for _, tc := range []struct{ name, send string }{
		{"nothing", ""},
		{"half a header", "GET / HTTP/1.1\r\nHost: a\r\n"},
		{"idle after an answer", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, tc.send)
			_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("not closed: %v", err)
			}
		})
	}
	t.Run("tcp only", func(t *testing.T) {
		t.Parallel()
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("not closed: %v", err)
		}
	})
}

func TestHeaderLimit(t *testing.T) {
	s := start(t, Options{})
	for _, h2 := range []bool{false, true} {
		r, _ := http.NewRequest("GET", "https://"+s.addr, nil)
		for range 20 {
			r.Header.Add("A", strings.Repeat("a", 4000))
		}
		res, err := client(t, h2).Do(r)
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("h2=%v: status %d", h2, res.StatusCode)
			}
		}
	}
}

func TestDrain(t *testing.T) {
	inside := make(chan struct{})
	s := start(t, Options{Webs: []transport.Web{fakeWeb{cover: page}}, Accept: func(c net.Conn) {
		close(inside)
		_, _ = io.Copy(c, c)
	}})
	c := client(t, true)
	pr, pw := io.Pipe()
	r, _ := http.NewRequest("POST", "https://"+s.addr+"/connect", pr)
	r.Header.Set("Cookie", "sid="+good)
	c.Timeout = 0
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-inside
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	for { // no new connection gets in
		n, err := net.DialTimeout("tcp", s.addr, time.Second)
		if err != nil {
			break
		}
		n.Close()
	}
	if _, err := io.WriteString(pw, "still here"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != "still here" {
		t.Errorf("session during drain: %q %v", b, err)
	}
	pw.Close()
	select {
	case <-stopped:
	case <-time.After(30 * time.Second):
		t.Fatal("drain does not end")
	}
}

func TestDrainEndsSessionsAtItsLimit(t *testing.T) {
	inside := make(chan struct{})
	s := start(t, Options{DrainTimeout: 200 * time.Millisecond, Webs: []transport.Web{fakeWeb{cover: page}}, Accept: func(c net.Conn) {
		close(inside)
		_, _ = io.Copy(io.Discard, c)
	}})
	c := client(t, true)
	pr, pw := io.Pipe()
	defer pw.Close()
	r, _ := http.NewRequest("POST", "https://"+s.addr+"/connect", pr)
	r.Header.Set("Cookie", "sid="+good)
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-inside
	begin := time.Now()
	s.stop()
	if d := time.Since(begin); d > 20*time.Second {
		t.Errorf("took %v", d)
	}
}

// TestPanicIsLoggedWithoutAddress: a handler's panic ends one request.
func TestPanicIsLoggedWithoutAddress(t *testing.T) {
	var buf bytes.Buffer
	var mu sync.Mutex
	log := slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return buf.Write(b)
	}), nil))
	s := start(t, Options{Log: log, Cover: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oops") })})
	for _, h2 := range []bool{false, true} {
		if res, err := client(t, h2).Get("https://" + s.addr); err == nil {
			res.Body.Close()
		}
	}
	s.stop()
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(buf.String(), "handler panicked"); n != 2 || strings.Contains(buf.String(), "127.0.0.1") {
		t.Errorf("%d records:\n%s", n, &buf)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestOptions(t *testing.T) {
	if _, err := New(Options{Certificates: static(t)}); err != ErrNoCover {
		t.Error(err)
	}
	if _, err := New(Options{Cover: page}); err != ErrNoCertificate {
		t.Error(err)
	}
	f, _ := New(Options{Cover: page, Certificates: static(t)})
	if err := f.Serve(context.Background(), nil); err == nil {
		t.Error("served nothing")
	}
}

func writePair(t testing.TB, dir string, serial int64) Pair {
	t.Helper()
	c, k := makePEM(t, serial)
	p := Pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	for name, b := range map[string][]byte{p.Certificate: c, p.Key: k} {
		if err := os.WriteFile(name+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	return p
}
