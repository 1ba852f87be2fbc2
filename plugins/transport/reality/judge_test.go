package reality

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// TestJudge: what makes a cover unfit is said, and such a cover lets nobody in.
func TestJudge(t *testing.T) {
	other, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := http.RedirectHandler("https://other.example/", http.StatusMovedPermanently)
	for name, tc := range map[string]struct {
		config  *tls.Config
		handler http.Handler
		plain   bool
		wait    time.Duration
		want    string // "" is fit
	}{
		"fit":         {},
		"TLS 1.2":     {config: &tls.Config{MaxVersion: tls.VersionTLS12}, want: "TLS 1.3"},
		"retry":       {config: &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}}, want: "HelloRetryRequest"},
		"P-256 alone": {config: &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP256}}, want: "HelloRetryRequest"},
		"untrusted":   {config: &tls.Config{Certificates: []tls.Certificate{other.pair}}, want: "do not trust"},
		"no HTTP/2":   {config: &tls.Config{NextProtos: []string{"http/1.1"}}, plain: true, want: "HTTP/2"},
		"redirect":    {handler: elsewhere, want: "other.example"},
		"slow":        {wait: slowHandshake, want: "a handshake takes"},
		"long chain":  {config: &tls.Config{Certificates: []tls.Certificate{longChain()}}, want: "too long"},
		"same server": {handler: http.RedirectHandler("https://"+siteName+"/en/", http.StatusFound)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &tls.Config{}
			if tc.config != nil {
				c = tc.config
			}
			if c.Certificates == nil {
				c.Certificates = []tls.Certificate{testAuthority().pair}
			}
			if tc.wait > 0 {
				pair := c.Certificates[0]
				c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { time.Sleep(tc.wait); return &pair, nil }
				c.Certificates = nil
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: tc.handler, TLSConfig: c, ErrorLog: quiet()}
			if srv.Handler == nil {
				srv.Handler = pageHandler()
			}
			if tc.plain {
				srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
			}
			go func() { _ = srv.ServeTLS(ln, "", "") }()
			t.Cleanup(func() { _ = srv.Close() })
			raw := baseConfig(t, ln.Addr().String())
			o, err := transport.Open(t.Context(), Plugin(), nil, raw)
			if err != nil {
				t.Fatal(err)
			}
			err = o.Probe(t.Context())
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if sdk.KindOf(err) != sdk.Invalid || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "force = true") {
				t.Errorf("%v", err)
			}
			raw["force"] = true
			if forced, err := transport.Open(t.Context(), Plugin(), nil, raw); err != nil || forced.Probe(t.Context()) != nil {
				t.Errorf("forced: %v", err)
			}
		})
	}
}

// TestJudgeBrowsers: a cover must suit every browser that clients imitate, and what it
// announces must be there.
func TestJudgeBrowsers(t *testing.T) {
	fit := func() *study {
		l := func() *look {
			return &look{hello: serverHello{tls13: true, group: groupHybrid}, protocol: "h2", flight: []int{1215, 6, 36, 3000, 286, 58},
				certificate: &x509.Certificate{NotAfter: time.Now().Add(240 * time.Hour)}}
		}
		return &study{looks: [offeredKinds]*look{offersHTTP2: l()}, firefox: l(), page: &page{status: 200}}
	}
	for name, tc := range map[string]struct {
		change func(*study)
		weight Weight
		want   string
	}{
		"long without compression":  {func(s *study) { s.firefox.flight[3] = 9000 }, Unfit, "its answer to Firefox has a record of 9000 bytes"},
		"other records for Firefox": {func(s *study) { s.firefox.flight = s.firefox.flight[:4] }, Unfit, "its answer to Firefox has 4 records"},
		"HTTP/3":                    {func(s *study) { s.page.http3 = true }, Risk, "UDP 443"},
	} {
		s := fit()
		tc.change(s)
		if !slices.ContainsFunc(s.judge(siteName, time.Now()), func(f Finding) bool { return f.Weight == tc.weight && strings.Contains(f.Text, tc.want) }) {
			t.Errorf("%s: %v", name, s.judge(siteName, time.Now()))
		}
	}
	if found := fit().judge(siteName, time.Now()); len(found) > 0 {
		t.Errorf("fit: %v", found)
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Alt-Svc", `h3=":443"; ma=86400`) })
	o := newOwn(h, testAuthority().pair, testLog(t))
	t.Cleanup(o.close)
	if p, err := visitCover(t.Context(), o, siteName, testAuthority().roots); err != nil || !p.http3 {
		t.Errorf("%+v, %v", p, err)
	}
}

// longChain has a certificate message that no imitation can hold.
func longChain() tls.Certificate {
	pair := testAuthority().pair
	for size := 0; size < maxMirrored; size += len(pair.Certificate[1]) {
		pair.Certificate = append(pair.Certificate[:len(pair.Certificate):len(pair.Certificate)], pair.Certificate[1])
	}
	return pair
}

// TestUnfit: an unfit cover is shown to strangers, and nobody comes in.
func TestUnfit(t *testing.T) {
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{testAuthority().pair}, MaxVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: pageHandler(), ErrorLog: quiet()}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	r := newRig(t, baseConfig(t, ln.Addr().String()))
	r.start()
	if err := r.awaitHealth(errUnfit{}); sdk.KindOf(err) != sdk.Invalid {
		t.Errorf("%v", err)
	}
	if err := checkEcho(r.endpoint(), "", 10); err == nil {
		t.Error("a client came in")
	}
	conn, err := tls.Dial("tcp", r.addr, &tls.Config{ServerName: siteName, RootCAs: testAuthority().roots})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

type errUnfit struct{}

func (errUnfit) Error() string { return "is unfit" }

// TestLoop: a cover that is the port itself is refused.
func TestLoop(t *testing.T) {
	addr := freeAddress(t)
	raw := baseConfig(t, addr)
	raw["listen"] = addr
	r := newRig(t, raw)
	r.start()
	r.awaitHealth(errLoop)
	if c, err := net.Dial("tcp", addr); err == nil { // the reset may be that quick
		defer c.Close()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("somebody answers where there is no cover")
		}
	}
	if n := r.ln.figures.coverErrors.Load() + r.ln.figures.strangers.Load(); n != 0 {
		t.Errorf("%d connections to itself", n)
	}
	for _, tc := range []struct {
		listen, cover string
		loop          bool
	}{
		{":443", "127.0.0.1:443", true}, {":443", "localhost:443", true}, {"0.0.0.0:443", "127.0.0.2:443", true},
		{":443", "127.0.0.1:8443", false}, {":443", "192.0.2.7:443", false}, {"192.0.2.7:443", "127.0.0.1:443", false},
	} {
		at, err := net.ResolveTCPAddr("tcp", tc.listen)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkLoop(t.Context(), testSite(t, tc.cover), at); errors.Is(err, errLoop) != tc.loop {
			t.Errorf("%s in front of %s: %v", tc.listen, tc.cover, err)
		}
	}
	if ip := net.IPv4(127, 0, 0, 1); !bindable(ip) || bindable(net.IPv4(192, 0, 2, 7)) {
		t.Error("own and foreign addresses are not told apart without a list of them")
	}
}
