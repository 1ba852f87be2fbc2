package reality

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

const siteName = "www.example.test"

// authority is a certification authority of the tests, with a leaf for siteName. The
// leaf is RSA, whose signatures have one length: answers can be compared byte for
// byte in size.
type authority struct {
	roots      *x509.CertPool
	rootPEM    []byte
	chain, key []byte // PEM
	pair       tls.Certificate
	quick      tls.Certificate // ECDSA
	quickChain []byte          // PEM
	quickKey   []byte
}

var testAuthority = sync.OnceValue(func() *authority {
	a, err := newAuthority()
	if err != nil {
		panic(err)
	}
	return a
})

func newAuthority() (*authority, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	a := &authority{roots: x509.NewCertPool(), rootPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})}
	a.roots.AppendCertsFromPEM(a.rootPEM)
	leafKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := a.issue(caDER, caKey, ecKey); err != nil {
		return nil, err
	}
	a.quick, a.quickChain, a.quickKey = a.pair, a.chain, a.key
	return a, a.issue(caDER, caKey, leafKey)
}

func (a *authority) issue(caDER []byte, caKey, leafKey crypto.Signer) error {
	ca, err := x509.ParseCertificate(caDER)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: siteName}, DNSNames: []string{siteName, "alt.example.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(239 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		return err
	}
	a.chain = append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), a.rootPEM...)
	a.key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	a.pair, err = tls.X509KeyPair(a.chain, a.key)
	return err
}

const pageText = "<!doctype html><title>Example</title><p>An ordinary page.\n"

func pageHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, pageText)
	})
}

func quiet() *log.Logger { return slog.NewLogLogger(slog.DiscardHandler, 0) }

// goCover is a site on Go's server; its address.
func goCover(t testing.TB) string {
	t.Helper()
	return goCoverWith(t, testAuthority().pair)
}

func goCoverWith(t testing.TB, pair tls.Certificate) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler: pageHandler(), ErrorLog: quiet(), ReadHeaderTimeout: 30 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}},
	}
	done := make(chan struct{})
	go func() { _ = srv.ServeTLS(ln, "", ""); close(done) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String()
}

// nginxCover is a site on nginx with OpenSSL; its address.
func nginxCover(t testing.TB) string { return nginxCoverWith(t, "") }

// nginxCoverWith has more directives.
func nginxCoverWith(t testing.TB, more string) string {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		program = "/usr/sbin/nginx"
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("nginx is needed (make deps installs it): %v", err)
	}
	dir := t.TempDir()
	a := testAuthority()
	addr := freeAddress(t)
	conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log crit;
events { worker_connections 4096; }
http {
	access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server {
		listen %[2]s ssl http2 backlog=4096; server_name %[3]s; root %[1]s/www;
		ssl_certificate %[1]s/chain.pem; ssl_certificate_key %[1]s/key.pem; ssl_protocols TLSv1.2 TLSv1.3; %[4]s
	}
}
`, dir, addr, siteName, more)
	for name, content := range map[string]string{"nginx.conf": conf, "chain.pem": string(a.chain), "key.pem": string(a.key), "www/index.html": pageText} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	start(t, addr, program, "-p", dir, "-e", dir+"/error.log", "-c", dir+"/nginx.conf")
	return addr
}

func freeAddress(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// start runs a program until the test ends and waits until its address answers.
func start(t testing.TB, addr, program string, args ...string) *exec.Cmd {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = c.Close()
			return cmd
		}
		select {
		case <-exited:
			t.Fatalf("%s ended: %s", program, &out)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %s", program, &out)
		}
	}
}

// rig is a server half under test.
type rig struct {
	t       testing.TB
	config  map[string]any
	state   string
	now     func() time.Time
	log     *slog.Logger // nil is the test's
	find    lookup
	ln      *server
	healthy chan error
	addr    string
}

// newDraft draws a key as the operator's command does.
func newDraft(t testing.TB) Draft {
	t.Helper()
	d, err := Draw(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func baseConfig(t testing.TB, cover string) map[string]any {
	d := newDraft(t)
	a := testAuthority()
	raw := d.Table(strings.TrimSpace(string(d.PrivateKey)), cover, []string{siteName})
	raw["listen"] = "127.0.0.1:0"
	raw["roots"] = sdk.NewFile("roots.pem", a.rootPEM)
	if cover == coverSelf {
		raw["certificate"] = sdk.NewFile("chain.pem", a.chain)
		raw["key"] = string(a.key)
	}
	return raw
}

// startServer runs a server half until the test ends; it is healthy on return.
func startServer(t testing.TB, raw map[string]any) *rig {
	t.Helper()
	r := newRig(t, raw)
	r.start()
	r.awaitHealth(nil)
	return r
}

func newRig(t testing.TB, raw map[string]any) *rig {
	return &rig{t: t, config: raw, state: t.TempDir(), now: time.Now, find: net.DefaultResolver.LookupNetIP}
}

func (r *rig) start() {
	r.t.Helper()
	r.healthy = make(chan error, 64)
	healthy := r.healthy
	if r.log == nil {
		r.log = testLog(r.t)
	}
	env := sdk.NewEnv(sdk.EnvOptions{
		State: r.state, Cover: pageHandler(), Log: r.log,
		Degraded: func(err error) {
			select {
			case healthy <- err:
			default:
			}
		},
	})
	var c Config
	if err := sdk.Decode(r.config, nil, &c); err != nil {
		r.t.Fatal(err)
	}
	ln, err := listen(context.Background(), env, c, r.now, r.find)
	if err != nil {
		r.t.Fatal(err)
	}
	r.ln, r.addr = ln, ln.Addr().String()
	r.t.Cleanup(func() { _ = ln.Close() })
}

// awaitHealth waits for the next report that is nil, or that contains the text of want.
func (r *rig) awaitHealth(want error) error {
	r.t.Helper()
	timeout := time.After(40 * time.Second)
	var last error
	for {
		select {
		case err := <-r.healthy:
			last = err
			if want == nil && err == nil || want != nil && err != nil && strings.Contains(err.Error(), want.Error()) {
				return err
			}
		case <-timeout:
			r.t.Fatalf("health: want %v, last was %v", want, last)
		}
	}
}

// restart ends the server half and starts it again on the same state folder.
func (r *rig) restart() {
	r.t.Helper()
	if err := r.ln.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.start()
	r.awaitHealth(nil)
}

// echoAll answers every session with what it sends.
func (r *rig) echoAll() {
	ln := r.ln
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			}()
		}
	}()
}

func (r *rig) endpoint() transport.Endpoint {
	r.t.Helper()
	host, _, _ := net.SplitHostPort(r.addr)
	e, err := r.ln.Invite(context.Background(), host, transport.Guest{})
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

func dialRig(ctx context.Context, e transport.Endpoint, fingerprint string) (net.Conn, error) {
	return (&dialer{now: time.Now}).dial(ctx, e, transport.Dial{Roots: testAuthority().roots, Fingerprint: fingerprint})
}

// checkEcho sends size bytes through a fresh stream.
func checkEcho(e transport.Endpoint, fingerprint string, size int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := dialRig(ctx, e, fingerprint)
	if err != nil {
		return err
	}
	defer c.Close()
	return echoOver(c, size)
}

func echoOver(c net.Conn, size int) error {
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	sent := make([]byte, size)
	_, _ = rand.Read(sent)
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		wrote <- errors.Join(err, transport.CloseWrite(c))
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-wrote); err != nil {
		return err
	}
	if sha256.Sum256(got) != sha256.Sum256(sent) {
		return fmt.Errorf("%d bytes came back, other than the %d sent", len(got), len(sent))
	}
	return nil
}

// testLog shows logs of failing tests.
func testLog(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = nil
	})
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct {
	mu sync.Mutex
	t  testing.TB
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s", bytes.TrimSpace(p))
	}
	return len(p), nil
}
