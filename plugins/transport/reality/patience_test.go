package reality

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Patience is when a silent prober is told to go: at once, or when the cover's own time-out
// ends. The two lie so far apart that no load makes one of the other: a time-out never ends
// early, and what is said at once is asked for again when it came late.
const (
	coverPatience = 4 * time.Second // of the covers here, at least
	atOnce        = coverPatience / 2
	never         = 60 * time.Second
)

// patience says how long a target bears with a prober that sends its steps and no more.
func patience(addr string, p probe) string {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	began := time.Now()
	var got bytes.Buffer
	var took time.Duration
	for i, s := range p.steps {
		if i > 0 {
			drain(c, &got, 5*answerTime, &took, began)
		}
		_, _ = c.Write(s.data)
	}
	sent := time.Now()
	end := drain(c, &got, never, &took, began)
	switch quiet := time.Since(sent); {
	case end == "open":
		return "never"
	case quiet < atOnce:
		return "at once, " + end
	default:
		return "later, " + end
	}
}

// patientGo is a site on Go's server with a short time-out.
func patientGo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler: pageHandler(), ErrorLog: quiet(), ReadHeaderTimeout: coverPatience,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{testAuthority().pair}},
	}
	done := make(chan struct{})
	go func() { _ = srv.ServeTLS(ln, "", ""); close(done) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String()
}

// TestPatience: the port bears with a prober for as long as its cover does, whoever's hello
// came first.
func TestPatience(t *testing.T) {
	for name, cover := range map[string]string{"go": patientGo(t), "nginx": nginxCoverWith(t, "client_header_timeout 4s;"), "self": coverSelf} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bare := cover
			if cover == coverSelf {
				bare = bareOwn(t)
			}
			r := startServer(t, baseConfig(t, cover))
			r.echoAll()
			p, err := parseParams(r.endpoint(), "")
			if err != nil {
				t.Fatal(err)
			}
			k := &kinds{t: t, good: shape{params: p, profile: "chrome"}, captured: capture(t, r)}
			spec, junk := []byte{20, 3, 3, 0, 1, 1}, record(typeApplicationData, make([]byte, 53))
			half := record(typeApplicationData, make([]byte, 53))[:20]
			makers := map[string]func() []step{
				"nothing":    func() []step { return nil },
				"half hello": func() []step { return send(k.stranger(nil)[:300]) },
				"HTTP":       func() []step { return send([]byte("GET / HTTP/1.1\r\n\r\n")) },
			}
			for who, hello := range map[string]func() []byte{
				"stranger": func() []byte { return k.stranger(nil) }, "replay": func() []byte { return k.captured }, "withheld": func() []byte { return k.sealed(nil) },
			} {
				for what, b := range map[string][]byte{"nothing": nil, "a specification": spec, "half a record": half, "junk": junk} {
					makers[who+", then "+what] = func() []step { return []step{{data: hello()}, {data: b}} }
				}
			}
			var wg sync.WaitGroup
			for kind, steps := range makers {
				wg.Go(func() {
					var said []string
					for range 5 { // "at once" may come late, "later" never early
						a := make(chan string, 1)
						go func() { a <- patience(bare, probe{steps: steps()}) }()
						port := patience(r.addr, probe{steps: steps()})
						want := <-a
						if port == want && port != "never" {
							return
						}
						said = append(said, fmt.Sprintf("cover %s, port %s", want, port))
					}
					t.Errorf("%s: %q", kind, said)
				})
			}
			wg.Wait()
		})
	}
}
