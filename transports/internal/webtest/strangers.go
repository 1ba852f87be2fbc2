package webtest

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/entry"
)

// Good describes a request that the transport takes.
type Good struct {
	Method string
	// St draws a stream part; nil for none.
	St func() string
	// Head are header lines beside Host and Cookie, each with its line end.
	Head string
	// Body follows the head.
	Body string
}

// Strangers checks that requests without a good token get, byte for byte, what
// the cover alone answers, and that accept is never called.
func (x Transport) Strangers(t *testing.T, good Good) {
	t.Helper()
	accepted := make(chan struct{}, 100)
	accept := func(net.Conn) { accepted <- struct{}{} }
	site := Start(t, func(s *Site) http.Handler { return Mount(x.Web(s), accept) })
	// Serve alone, as if everything matched.
	bare := Start(t, func(s *Site) http.Handler {
		w := x.Web(s)
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.Serve(rw, r, accept) })
	})
	cover := Start(t, func(*Site) http.Handler { return Cover() })
	draw := good.St
	if draw == nil {
		draw = func() string { return "" }
	}
	for _, s := range []*Site{site, bare} {
		if got := Raw(t, s, good.request(Path, Cookie, s.Token(good.Method, Path, draw()))); got == "" {
			t.Error("a good request got no answer")
		}
		select {
		case <-accepted:
		case <-time.After(5 * time.Second):
			t.Fatal("a good request was not accepted")
		}
	}
	for _, s := range []*Site{site, bare} {
		token := func(method, path, st string, at time.Time) string {
			return s.Credential.Token(method, path, st, at, rand.Reader)
		}
		now, st := time.Now(), draw()
		replayed := token(good.Method, Path, st, now)
		Raw(t, s, good.request(Path, Cookie, replayed))
		<-accepted
		other := entry.New(make([]byte, 32), now.Add(time.Hour), rand.Reader)
		wrong := good
		wrong.Method = map[string]string{"GET": "POST", "POST": "GET"}[good.Method]
		if wrong.Method == "POST" && good.Body == "" {
			wrong.Head += "Content-Length: 0\r\n"
		}
		bad := map[string]string{
			"no cookie":       good.request(Path, "", ""),
			"other cookie":    good.request(Path, "session", token(good.Method, Path, st, now)),
			"empty":           good.request(Path, Cookie, ""),
			"junk":            good.request(Path, Cookie, strings.Repeat("A", len(replayed))),
			"replayed":        good.request(Path, Cookie, replayed),
			"old":             good.request(Path, Cookie, token(good.Method, Path, st, now.Add(-3*time.Minute))),
			"from the future": good.request(Path, Cookie, token(good.Method, Path, st, now.Add(3*time.Minute))),
			"other master":    good.request(Path, Cookie, other.Token(good.Method, Path, st, now, rand.Reader)),
			"other path":      good.request("/index.html", Cookie, token(good.Method, "/index.html", st, now)),
			"root":            good.request("/", Cookie, token(good.Method, "/", st, now)),
			"query":           good.request(Path+"?x=1", Cookie, token(good.Method, Path, st, now)),
			"escaped path":    good.request("/%61"+Path[2:], Cookie, token(good.Method, Path, st, now)),
			"other method":    wrong.request(Path, Cookie, token(wrong.Method, Path, st, now)),
			"unknown stream":  good.request(Path, Cookie, token(good.Method, Path, entry.Stream{Op: entry.OpDown, Offset: 1}.String(), now)),
		}
		for name, request := range bad {
			if got, want := Raw(t, s, request), Raw(t, cover, request); got != want {
				t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
			}
		}
	}
	time.Sleep(20 * time.Millisecond)
	if len(accepted) > 0 {
		t.Errorf("%d strangers were accepted", len(accepted))
	}
}

func (g Good) request(path, cookie, value string) string {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: relay.example\r\n%s", g.Method, path, g.Head)
	if cookie != "" {
		head += "Cookie: a=b; " + cookie + "=" + value + "\r\n"
	}
	return head + "\r\n" + g.Body
}

// Connect makes a TLS connection with http/1.1.
func Connect(t testing.TB, s *Site) *tls.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{RootCAs: s.Roots, ServerName: "relay.example", NextProtos: []string{"http/1.1"}}}
	c, err := d.DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*tls.Conn)
}

var dates = regexp.MustCompile(`Date: [^\r]*\r\n`)

// Raw sends a request as it stands and returns the answer's head and body
// without the date.
func Raw(t testing.TB, s *Site, request string) string {
	t.Helper()
	c := Connect(t, s)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	var all strings.Builder
	tee := bufio.NewReader(io.TeeReader(r, &all))
	resp, err := http.ReadResponse(tee, nil) //nolint:bodyclose // it reads the connection, which is closed
	if err != nil {
		return ""
	}
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.Header.Get("Content-Type") != "text/event-stream" {
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	return dates.ReplaceAllString(all.String(), "")
}
