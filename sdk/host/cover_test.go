package host_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk/plugintest"
)

// site is a cover site with everything that could go wrong on the way.
func site(step <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/stream":
			w.Header().Set("Trailer", "X-Sum")
			w.WriteHeader(http.StatusTeapot)
			for range 3 {
				fmt.Fprint(w, "part ")
				_ = http.NewResponseController(w).Flush()
				<-step
			}
			w.Header().Set("X-Sum", "3")
		case "/echo":
			w.Header()["X-Many"] = []string{"a", "b"}
			w.Header().Set("X-Seen", strings.Join([]string{
				r.Method, r.Host, r.RequestURI, r.Proto, r.Header.Get("X-In"), r.UserAgent(), fmt.Sprint(r.TLS != nil),
			}, " "))
			w.Header().Set("X-From", r.RemoteAddr) // not what the client forged
			b, _ := io.ReadAll(r.Body)
			_, _ = w.Write(b)
		case "/duplex":
			_ = http.NewResponseController(w).EnableFullDuplex()
			for b := make([]byte, 16<<10); ; {
				n, err := r.Body.Read(b)
				_, _ = w.Write(b[:n])
				_ = http.NewResponseController(w).Flush()
				if err != nil {
					return
				}
			}
		case "/bare":
			w.Header()["Date"] = nil
			w.Header()["Content-Type"] = nil
			fmt.Fprint(w, "<html>")
		case "/page":
			fmt.Fprint(w, "<html>", strings.Repeat("page ", 10_000))
		case "/moved":
			http.Redirect(w, r, "/page?x=%20y", http.StatusFound)
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/cut":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "some")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		default:
			http.NotFound(w, r)
		}
	})
}

// covered starts the sample with a cover site and gives the site's address there.
func covered(t *testing.T, step <-chan struct{}) string {
	t.Helper()
	env := plugintest.NewLender(t)
	env.Site = site(step)
	_, o := sampled(t, env, map[string]any{"web": "127.0.0.2:0"})
	listening(t, o)
	ln, err := env.Listen(t.Context(), "tcp", "127.0.0.2:0") // the same socket
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// client makes requests to one address by one protocol, without following.
func client(t *testing.T, http2 bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!http2)
	p.SetUnencryptedHTTP2(http2)
	tr := &http.Transport{Protocols: p, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// answer is everything of an answer that must be the same.
type answer struct {
	Status  string
	Header  http.Header
	Body    string
	Cut     bool
	Trailer http.Header
	Length  int64
}

func ask(t *testing.T, c *http.Client, address, method, path, body string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "relay.example"
	r.Header.Set("X-In", "in")
	r.Header.Set("Commucat-Cover-Remote", "forged")
	in, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer in.Body.Close()
	b, err := io.ReadAll(in.Body)
	if from := in.Header.Get("X-From"); from != "" {
		if _, _, err := net.SplitHostPort(from); err != nil || !strings.HasPrefix(from, "127.0.0.") {
			t.Errorf("the site sees a request from %q", from)
		}
	}
	in.Header.Del("X-From")
	if in.Header.Get("Date") != "" {
		in.Header.Set("Date", "then")
	}
	return answer{in.Status, in.Header, string(b), err != nil, in.Trailer, in.ContentLength}
}

// The cover site answers through the plugin as it does itself.
func TestCover(t *testing.T) {
	step := make(chan struct{})
	close(step)
	address := covered(t, step)
	direct := httptest.NewServer(site(step))
	defer direct.Close()
	for _, http2 := range []bool{false, true} {
		if http2 {
			direct.Config.Protocols = new(http.Protocols)
			direct.Config.Protocols.SetUnencryptedHTTP2(true)
			direct.Config.Protocols.SetHTTP1(true)
			again := httptest.NewUnstartedServer(site(step))
			again.Config.Protocols = direct.Config.Protocols
			again.Start()
			defer again.Close()
			direct = again
		}
		c := client(t, http2)
		for _, q := range []struct{ method, path, body string }{
			{"GET", "/stream", ""}, {"GET", "/echo?a=%2F&b", ""}, {"POST", "/echo", strings.Repeat("body ", 50_000)},
			{"GET", "/bare", ""}, {"GET", "/page", ""}, {"HEAD", "/page", ""}, {"GET", "/moved", ""}, {"GET", "/none", ""},
			{"GET", "/cut", ""}, {"GET", "/a//b/../c", ""}, {"OPTIONS", "/x", ""},
		} {
			want := ask(t, c, direct.Listener.Addr().String(), q.method, q.path, q.body)
			got := ask(t, c, address, q.method, q.path, q.body)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("HTTP/2 %v, %s %s differs (-site +plugin):\n%s", http2, q.method, q.path, d)
			}
		}
	}
}

// What the site sends arrives before it has ended, and a client that goes away is
// noticed.
func TestCoverStreams(t *testing.T) {
	step := make(chan struct{})
	address := covered(t, step)
	c := client(t, true)
	in, err := c.Get("http://" + address + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Body.Close()
	for range 3 {
		if got := mustRead(t, in.Body, make([]byte, 5)); got != "part " {
			t.Errorf("%q", got)
		}
		step <- struct{}{}
	}
	if _, err := in.Body.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || in.Trailer.Get("X-Sum") != "3" {
		t.Error(err, in.Trailer)
	}
	// Both ways at once.
	r, w := io.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/duplex", r)
	if err != nil {
		t.Fatal(err)
	}
	go fmt.Fprint(w, strings.Repeat("x", 10_000))
	in, err = c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Body.Close()
	mustRead(t, in.Body, make([]byte, 10_000))
	go fmt.Fprint(w, "more")
	if got := mustRead(t, in.Body, make([]byte, 4)); got != "more" {
		t.Errorf("%q", got)
	}
	w.Close()
	if _, err := in.Body.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// status asks once, over a connection that ends with the answer where last.
func status(c *http.Client, address string, last bool) string {
	r, err := http.NewRequest(http.MethodGet, "http://"+address+"/page", nil)
	if err != nil {
		return err.Error()
	}
	r.Close = last
	in, err := c.Do(r)
	if err != nil {
		return err.Error()
	}
	defer in.Body.Close()
	if _, err := io.Copy(io.Discard, in.Body); err != nil {
		return err.Error()
	}
	return in.Status
}

// Many come at once, also at the very first, and some say that their connection ends:
// that is not the plugin's connection to the site.
func TestCoverOfACrowd(t *testing.T) {
	address := covered(t, nil)
	c := client(t, false)
	c.Timeout = patience
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			for n := range 20 {
				if got := status(c, address, (i+n)%3 == 0); got != "200 OK" {
					t.Errorf("request %d of %d: %s", n, i, got)
					return
				}
			}
		})
	}
	group.Wait()
	if got := status(c, address, false); got != "200 OK" {
		t.Error("afterwards:", got)
	}
}

// More requests that wait than one connection carries leave the site to the others.
func TestCoverOfThoseWhoWait(t *testing.T) {
	step := make(chan struct{})
	address := covered(t, step)
	c := client(t, true)
	var group sync.WaitGroup
	defer group.Wait()
	defer close(step)
	for range 600 {
		in, err := c.Get("http://" + address + "/stream")
		if err != nil {
			t.Fatal(err)
		}
		if in.StatusCode != http.StatusTeapot {
			t.Fatal(in.Status)
		}
		group.Go(func() {
			_, _ = io.Copy(io.Discard, in.Body)
			in.Body.Close()
		})
	}
	if got := status(c, address, false); got != "200 OK" {
		t.Error(got)
	}
}

// An upgrade of the plugin gives the site to its successor.
func TestCoverIsLentAgain(t *testing.T) {
	step := make(chan struct{})
	close(step)
	for range 2 {
		address := covered(t, step)
		got := ask(t, client(t, false), address, "GET", "/page", "")
		if got.Status != "200 OK" {
			t.Error(got.Status)
		}
	}
}
