package split

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/entry"
	"github.com/commucat/commucat/sdk/transport"
	"github.com/commucat/commucat/transports/internal/gate"
	"github.com/commucat/commucat/transports/internal/webtest"
	"github.com/google/go-cmp/cmp"
)

func forms(t *testing.T, run func(t *testing.T, events bool)) {
	for name, events := range map[string]bool{"events": true, "poll": false} {
		t.Run(name, func(t *testing.T) { run(t, events) })
	}
}

func start(t testing.TB, events bool, times Times, accept func(net.Conn), protocols ...string) (*webtest.Site, *Server) {
	var server *Server
	site := webtest.Start(t, func(s *webtest.Site) http.Handler {
		server = NewServer("split", events, gate.Options{
			Path: webtest.Path, Cookie: webtest.Cookie, Verify: s.Verifier.Verify, Cover: webtest.Cover(),
		}, times)
		return webtest.Mount(server, accept)
	}, protocols...)
	return site, server
}

// echo sends back until the half-close and tells why reading ended.
func echo(ended chan<- error) func(net.Conn) {
	return func(c net.Conn) {
		_, err := io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
		ended <- err
	}
}

// cut is a TCP connection that dies after so many bytes.
type cut struct {
	net.Conn
	left *atomic.Int64
}

func (c cut) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.left.Add(-int64(n)) < 0 {
		_ = c.Conn.Close()
		return 0, errors.New("cut")
	}
	return n, err
}

func (c cut) Write(p []byte) (int, error) {
	if c.left.Add(-int64(len(p))) < 0 {
		n, _ := c.Conn.Write(p[:len(p)/2])
		_ = c.Conn.Close()
		return n, errors.New("cut")
	}
	return c.Conn.Write(p)
}

// Every connection dies after 15 to 60 KiB, handshake included; not a byte is
// lost or doubled.
func TestCutConnections(t *testing.T) {
	forms(t, func(t *testing.T, events bool) {
		for _, proto := range []string{"h2", "http/1.1"} {
			t.Run(proto, func(t *testing.T) {
				ended := make(chan error, 1)
				site, server := start(t, events, DefaultTimes(), echo(ended), proto)
				with := site.Dial
				var dials atomic.Int64
				with.DialTCP = func(ctx context.Context, network, address string) (net.Conn, error) {
					c, err := new(net.Dialer).DialContext(ctx, network, address)
					if err != nil {
						return nil, err
					}
					left := new(atomic.Int64)
					left.Store(15_000 + dials.Add(1)*7919%45_000)
					return cut{c, left}, nil
				}
				c, err := Dial(t.Context(), "split", events, site.Endpoint, with)
				if err != nil {
					t.Fatal(err)
				}
				sent := make([]byte, 300_000)
				_, _ = rand.Read(sent)
				go func() {
					_, _ = c.Write(sent)
					_ = transport.CloseWrite(c)
				}()
				_ = c.SetReadDeadline(time.Now().Add(50 * time.Second))
				got, err := io.ReadAll(c)
				if err != nil || !bytes.Equal(got, sent) {
					t.Fatalf("got %d bytes after %d dials: %v", len(got), dials.Load(), err)
				}
				if err := <-ended; err != nil {
					t.Errorf("the relay's end: %v", err)
				}
				_ = c.Close()
				t.Logf("%d connections", dials.Load())
				within(t, "the stream is forgotten", func() bool { return server.Streams() == 0 })
			})
		}
	})
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s: not within 10 s", what)
			return
		}
	}
}

// A proxy that passes nothing on before it has all of it.
func TestBufferingProxy(t *testing.T) {
	ended := make(chan error, 1)
	site, _ := start(t, false, DefaultTimes(), echo(ended))
	behind := site.HTTP(t, false)
	proxy := webtest.Start(t, func(*webtest.Site) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			whole, _ := io.ReadAll(r.Body)
			out, err := http.NewRequestWithContext(r.Context(), r.Method, "https://"+site.Addr+r.URL.Path, bytes.NewReader(whole))
			if err != nil {
				return
			}
			out.Header = r.Header.Clone()
			resp, err := behind.Do(out)
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			defer resp.Body.Close()
			answer, _ := io.ReadAll(resp.Body)
			for k, v := range resp.Header {
				w.Header()[k] = v
			}
			w.WriteHeader(resp.StatusCode)
			_, _ = w.Write(answer)
		})
	})
	with := site.Dial
	with.Pins = proxy.Dial.Pins
	c, err := Dial(t.Context(), "split", false, proxy.Endpoint, with)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent, got := bytes.Repeat([]byte("x"), 1<<20), make([]byte, 1<<20)
	go func() { _, _ = c.Write(sent) }()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatal(err)
	}
}

// hand makes requests by hand.
type hand struct {
	t    *testing.T
	site *webtest.Site
	http *http.Client
	id   [16]byte
}

func newHand(t *testing.T, site *webtest.Site) *hand {
	h := &hand{t: t, site: site, http: site.HTTP(t, false)}
	_, _ = rand.Read(h.id[:])
	return h
}

func (h *hand) do(op entry.Op, offset uint64, body string, head ...string) (int, string) {
	h.t.Helper()
	method := http.MethodPost
	if op <= entry.OpDown {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.site.URL(), strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i+1 < len(head); i += 2 {
		req.Header.Set(head[i], head[i+1])
	}
	st := entry.Stream{Op: op, ID: h.id, Offset: offset}.String()
	req.Header.Set("Cookie", webtest.Cookie+"="+h.site.Token(method, webtest.Path, st))
	resp, err := h.http.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	if ours := resp.StatusCode != http.StatusNotFound; ours && resp.Header.Get("Cache-Control") != "no-store" || ours && resp.Header.Get("X-Accel-Buffering") != "no" {
		h.t.Errorf("%v %d: headers %v", op, resp.StatusCode, resp.Header)
	}
	return resp.StatusCode, string(answer)
}

// The table of protocol-extensions, section 7, request by request.
func TestLongPollByHand(t *testing.T) {
	times := DefaultTimes()
	times.Hold, times.HoldSpread = 50*time.Millisecond, 0
	conns := make(chan net.Conn, 1)
	over := make(chan struct{})
	defer close(over)
	site, server := start(t, false, times, func(c net.Conn) { conns <- c; <-over })
	h := newHand(t, site)
	type step struct {
		op     entry.Op
		offset uint64
		body   string
		status int
		answer string
	}
	run := func(steps ...step) {
		t.Helper()
		for i, s := range steps {
			status, answer := h.do(s.op, s.offset, s.body)
			if status == http.StatusNotFound {
				answer = ""
			}
			if diff := cmp.Diff(step{s.op, s.offset, s.body, status, answer}, s, cmp.AllowUnexported(step{})); diff != "" {
				t.Errorf("step %d: %s", i, diff)
			}
		}
	}
	run(step{entry.OpDown, 0, "", 404, ""}, step{entry.OpUp, 0, "abc", 404, ""}, step{entry.OpClose, 0, "", 404, ""},
		step{entry.OpOpen, 5, "", 404, ""})
	run(step{entry.OpOpen, 0, "", 204, ""}, step{entry.OpOpen, 0, "", 204, ""})
	c := <-conns
	run(step{entry.OpUp, 0, "abc", 200, "3"},
		step{entry.OpUp, 0, "abc", 200, "3"},   // repeated
		step{entry.OpUp, 1, "bcdef", 200, "6"}, // overlapping
		step{entry.OpUp, 7, "x", 409, "6"},     // a gap
		step{entry.OpUp, 6, "", 200, "6"},
		step{entry.OpDown, 0, "", 204, ""},
		step{entry.OpDown, 1, "", 409, "0"})
	got := make([]byte, 6)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "abcdef" {
		t.Errorf("upstream %q %v", got, err)
	}
	_, _ = c.Write([]byte("hello"))
	run(step{entry.OpDown, 0, "", 200, "hello"}, step{entry.OpDown, 0, "", 200, "hello"},
		step{entry.OpDown, 2, "", 200, "llo"}, step{entry.OpDown, 0, "", 409, "2"},
		step{entry.OpDown, 5, "", 204, ""})
	run(step{entry.OpClose, 5, "", 409, "6"}, step{entry.OpClose, 6, "", 204, ""}, step{entry.OpClose, 6, "", 204, ""})
	if _, err := c.Read(got); err != io.EOF {
		t.Errorf("after the close: %v", err)
	}
	_, _ = c.Write([]byte("bye"))
	_ = c.Close()
	run(step{entry.OpDown, 5, "", 200, "bye"}, step{entry.OpDown, 8, "", 200, ""})
	big := strings.Repeat("x", MaxUp+1)
	run(step{entry.OpUp, 6, big, 413, "6"})
	run(step{entry.OpClose, entry.Abandon, "", 204, ""}, step{entry.OpDown, 8, "", 404, ""})
	if n := server.Streams(); n != 0 {
		t.Errorf("%d streams left", n)
	}
}

func TestEventsByHand(t *testing.T) {
	times := DefaultTimes()
	times.Life, times.LifeSpread = 150*time.Millisecond, 0
	times.Comment, times.CommentSpread = 100*time.Millisecond, 0
	conns := make(chan net.Conn, 1)
	over := make(chan struct{})
	defer close(over)
	site, _ := start(t, true, times, func(c net.Conn) { conns <- c; _, _ = c.Write([]byte("hello")); <-over })
	h := newHand(t, site)
	accept := []string{"Accept", "text/event-stream"}
	status, answer := h.do(entry.OpOpen, 0, "", accept...)
	if want := ":\n\nid: 5\ndata: aGVsbG8=\n\n:\n\n"; status != 200 || answer != want {
		t.Errorf("%d %q", status, answer)
	}
	// Last-Event-ID overrides the offset.
	if _, answer = h.do(entry.OpDown, 0, "", append(accept, "Last-Event-ID", "3")...); !strings.HasPrefix(answer, ":\n\nid: 5\ndata: bG8=\n\n") {
		t.Errorf("%q", answer)
	}
	c := <-conns
	_ = c.Close()
	if _, answer = h.do(entry.OpDown, 5, "", accept...); answer != ":\n\nevent: end\nid: 5\ndata: \n\n" {
		t.Errorf("%q", answer)
	}
}

// A second fetch ends the first; the ring is never freed by the older one.
func TestSecondDownEndsFirst(t *testing.T) {
	over := make(chan struct{})
	defer close(over)
	site, _ := start(t, false, DefaultTimes(), func(net.Conn) { <-over })
	h := newHand(t, site)
	h.do(entry.OpOpen, 0, "")
	first := make(chan int, 1)
	go func() {
		status, _ := h.do(entry.OpDown, 0, "")
		first <- status
	}()
	// Until the first one is there, a second one changes nothing.
	for done := false; !done; {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, site.URL(), nil)
		st := entry.Stream{Op: entry.OpDown, ID: h.id}.String()
		req.Header.Set("Cookie", webtest.Cookie+"="+site.Token("GET", webtest.Path, st))
		if resp, err := h.http.Do(req); err == nil {
			_ = resp.Body.Close()
		}
		cancel()
		select {
		case status := <-first:
			if status != http.StatusNoContent {
				t.Errorf("status %d", status)
			}
			done = true
		default:
		}
	}
}

// A stream without requests ends, and its session with it.
func TestIdle(t *testing.T) {
	times := DefaultTimes()
	times.Idle = 100 * time.Millisecond
	ended := make(chan error, 1)
	site, server := start(t, false, times, echo(ended))
	h := newHand(t, site)
	h.do(entry.OpOpen, 0, "")
	select {
	case err := <-ended:
		if !errors.Is(err, ErrLost) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still there")
	}
	within(t, "the stream is forgotten", func() bool { return server.Streams() == 0 })
	if status, _ := h.do(entry.OpDown, 0, ""); status != http.StatusNotFound {
		t.Errorf("status %d", status)
	}
}

// The relay that forgot the stream: the client ends, it does not spin.
func TestForgotten(t *testing.T) {
	forms(t, func(t *testing.T, events bool) {
		site, server := start(t, events, DefaultTimes(), func(c net.Conn) { _, _ = io.Copy(io.Discard, struct{ io.Reader }{c}) })
		c, err := Dial(t.Context(), "split", events, site.Endpoint, site.Dial)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		server.mu.Lock()
		x := server.streams[c.(*client).id]
		server.mu.Unlock()
		x.finish(entry.Abandon)
		server.drop(x)
		_, _ = c.Write([]byte("anybody?"))
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, transport.ErrRefused) {
			t.Errorf("read: %v", err)
		}
	})
}

// A deadline that passed may be moved, and nothing is lost.
func TestDeadlineMoves(t *testing.T) {
	var e end
	e.init(10)
	_ = e.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := e.Read(make([]byte, 1)); err == nil {
		t.Fatal("read before the deadline was moved")
	}
	_ = e.SetReadDeadline(time.Time{})
	var n uint64
	e.put([]byte("abc"), func() bool { return true }, &n)
	got := make([]byte, 9)
	if m, err := e.Read(got); m != 3 || err != nil || n != 3 {
		t.Errorf("%d %v, counted %d", m, err, n)
	}
}

func TestSteadyPathDoesNotAllocate(t *testing.T) {
	var e end
	e.init(intake)
	var n uint64
	p, alive := make([]byte, 1000), func() bool { return true }
	step := func() {
		e.put(p, alive, &n)
		_, _ = e.Read(p)
		_, _ = e.Write(p)
		e.mu.Lock()
		e.copyOut(p, e.outBase)
		e.ack(e.outEnd())
		e.mu.Unlock()
	}
	step()
	if allocs := testing.AllocsPerRun(100, step); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte(":\n\nid: 5\ndata: aGVsbG8=\n\nevent: end\nid: 5\ndata: \n\n"))
	f.Add([]byte("data:YQ==\r\ndata: YQ==\r\nid:2\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := newDecoder(bytes.NewReader(in))
		for {
			e, err := d.next()
			if err != nil {
				return
			}
			// What was read, written and read again is the same.
			again, err := newDecoder(bytes.NewReader(appendEvent(nil, "", e.offset, e.data))).next()
			if err != nil || again.offset != e.offset || !bytes.Equal(again.data, e.data) {
				t.Fatalf("%+v became %+v, %v", e, again, err)
			}
		}
	})
}

func BenchmarkEcho(b *testing.B) {
	for name, events := range map[string]bool{"events": true, "poll": false} {
		for _, size := range []int{256, 64 << 10} {
			b.Run(name+"/"+strconv.Itoa(size), func(b *testing.B) {
				site, _ := start(b, events, DefaultTimes(), echo(make(chan error, 1)))
				c, err := Dial(b.Context(), "split", events, site.Endpoint, site.Dial)
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				p := make([]byte, size)
				b.SetBytes(int64(size))
				for b.Loop() {
					_, _ = c.Write(p)
					if _, err := io.ReadFull(c, p); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// TestJoins: a request tells by its shape alone which stream it belongs to.
func TestJoins(t *testing.T) {
	conns := make(chan net.Conn, 1)
	end := make(chan struct{})
	site, server := start(t, false, DefaultTimes(), func(c net.Conn) { conns <- c; <-end })
	c, err := Dial(t.Context(), "split", false, site.Endpoint, site.Dial)
	if err != nil {
		t.Fatal(err)
	}
	opened := <-conns
	request := func(id [16]byte) *http.Request {
		st := entry.Stream{Op: entry.OpDown, ID: id}
		r, _ := http.NewRequest(http.MethodGet, "https://relay.example"+webtest.Path, nil)
		r.Header.Set("Cookie", webtest.Cookie+"="+strings.Repeat("x", entry.TokenLength)+"."+st.String())
		return r
	}
	if got := server.Joins(request(c.(*client).id)); got != opened {
		t.Errorf("got %v", got)
	}
	other := request([16]byte{1})
	if got := server.Joins(other); got != nil {
		t.Errorf("another stream: %v", got)
	}
	other.Header.Del("Cookie")
	if got := server.Joins(other); got != nil {
		t.Errorf("no token: %v", got)
	}
	close(end)
	_ = c.Close()
}

// TestStalledUpload: an upload whose body stops coming ends, and what had arrived
// counts.
func TestStalledUpload(t *testing.T) {
	for _, proto := range []string{"h2", "http/1.1"} {
		t.Run(proto, func(t *testing.T) {
			times := DefaultTimes()
			times.Idle = 2 * time.Second
			conns := make(chan net.Conn, 1)
			over := make(chan struct{})
			defer close(over)
			site, _ := start(t, false, times, func(c net.Conn) { conns <- c; <-over }, proto)
			h := newHand(t, site)
			h.http = site.HTTP(t, proto == "h2")
			h.do(entry.OpOpen, 0, "")
			c := <-conns
			body, feed := io.Pipe()
			defer feed.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			r, _ := http.NewRequestWithContext(ctx, http.MethodPost, site.URL(), body)
			st := entry.Stream{Op: entry.OpUp, ID: h.id}.String()
			r.Header.Set("Cookie", webtest.Cookie+"="+site.Token("POST", webtest.Path, st))
			ended := make(chan error, 1)
			go func() {
				resp, err := h.http.Do(r)
				if err == nil {
					_ = resp.Body.Close()
				}
				ended <- err
			}()
			if _, err := io.WriteString(feed, "abc"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 3)); err != nil {
				t.Fatal(err)
			}
			select {
			case <-ended:
			case <-ctx.Done():
				_ = feed.Close()
				<-ended
				t.Fatal("the upload was still waited for")
			}
			if status, answer := h.do(entry.OpUp, 0, "abc"); status != http.StatusOK || answer != "3" {
				t.Errorf("%d %q", status, answer)
			}
		})
	}
}
