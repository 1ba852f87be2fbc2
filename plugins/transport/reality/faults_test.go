package reality

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// TestRefused: whoever lacks one thing gets the cover, says so, and sends nothing of
// ours.
func TestRefused(t *testing.T) {
	r := startServer(t, baseConfig(t, nginxCover(t)))
	r.echoAll()
	good := r.endpoint()
	with := func(key, value string) transport.Endpoint {
		e := good
		e.Params = map[string]string{}
		for k, v := range good.Params {
			e.Params[k] = v
		}
		e.Params[key] = value
		return e
	}
	for name, e := range map[string]transport.Endpoint{
		"another key": with(ParamPublicKey, newDraft(t).PublicKey), "another short id": with(ParamShortID, "01020304"),
		"a name that the cover has": with(transport.ParamName, "alt.example.test"),
	} {
		if err := checkEcho(e, "", 10); !errors.Is(err, transport.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A certificate for another name is no cover of ours.
	if err := checkEcho(with(transport.ParamName, "bank.example"), "", 10); !errors.Is(err, errMiddle) {
		t.Errorf("a name that the cover has not: %v", err)
	}
	for key, value := range map[string]string{ParamPublicKey: "short", ParamShortID: "xyz", ParamVersion: "1", transport.ParamName: "-", ParamFingerprint: "netscape"} {
		if err := checkEcho(with(key, value), "", 10); err == nil || errors.Is(err, transport.ErrRefused) {
			t.Errorf("%s=%s: %v", key, value, err)
		}
	}
	if n := r.ln.figures.entered.Load(); n != 0 {
		t.Errorf("%d were let in", n)
	}
}

// TestMiddle: somebody who ends TLS with a certificate of the cover's own authority is
// taken for the cover; with any other he gets an alert.
func TestMiddle(t *testing.T) {
	other, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{other.pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	said := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
		said <- err
	}()
	p, _ := testParams(t)
	at := transport.AddrPort(ln.Addr())
	if err := checkEcho(p.endpoint(at.Addr().String(), at.Port()), "", 10); !errors.Is(err, errMiddle) {
		t.Errorf("dial: %v", err)
	}
	if err := <-said; err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("the one in the middle heard %v", err)
	}
}

// TestVisit: a refused client behaves like a browser and learns the site's time.
func TestVisit(t *testing.T) {
	agents := make(chan string, 4)
	date := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		agents <- q.Proto + " " + q.UserAgent()
		w.Header().Set("Date", date.Format(http.TimeFormat))
	}), TLSConfig: &tls.Config{Certificates: []tls.Certificate{testAuthority().pair}}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.ServeTLS(ln, "", "") }()
	defer srv.Close()
	p, _ := testParams(t)
	at := transport.AddrPort(ln.Addr())
	told := make(chan time.Time, 1)
	_, err = (&dialer{now: time.Now}).dial(t.Context(), p.endpoint(at.Addr().String(), at.Port()), transport.Dial{
		Roots: testAuthority().roots, ServerTime: func(d time.Time) { told <- d },
	})
	if !errors.Is(err, transport.ErrRefused) {
		t.Fatal(err)
	}
	if agent := <-agents; agent != "HTTP/2.0 "+chromeAgent {
		t.Error(agent)
	}
	if d := <-told; !d.Equal(date) {
		t.Error(d)
	}
}

// TestCoverDown: nothing hangs while the cover is away, the reason is told, and all is
// well again when it is back.
func TestCoverDown(t *testing.T) {
	addr := freeAddress(t)
	r := newRig(t, baseConfig(t, addr))
	r.start()
	r.echoAll()
	if err := r.awaitHealth(errors.New("does not answer")); sdk.KindOf(err) != sdk.Unavailable {
		t.Errorf("kind of %v", err)
	}
	if c, err := net.Dial("tcp", r.addr); err == nil { // the reset may come that early
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("a stranger while the cover is away: %v", err)
		}
	}
	stop := serveAt(t, addr)
	r.awaitHealth(nil)
	if err := checkEcho(r.endpoint(), "", 1000); err != nil {
		t.Error(err)
	}
	stop()
	if err := checkEcho(r.endpoint(), "", 1000); err == nil {
		t.Error("a client came in without a cover")
	}
	r.awaitHealth(errors.New("cannot be reached"))
	stop = serveAt(t, addr)
	defer stop()
	r.awaitHealth(nil)
	if err := checkEcho(r.endpoint(), "", 1000); err != nil {
		t.Error(err)
	}
}

// serveAt is goCover at an address that is known before.
func serveAt(t testing.TB, addr string) (stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: pageHandler(), ErrorLog: quiet(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{testAuthority().pair}}}
	go func() { _ = srv.ServeTLS(ln, "", "") }()
	return func() { _ = srv.Close() }
}

// TestCoverSlow: a cover that accepts and says nothing makes the transport not ready, and
// holds nobody but whoever waits for it.
func TestCoverSlow(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	r := newRig(t, baseConfig(t, ln.Addr().String()))
	r.start()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := dialRig(ctx, r.endpoint(), ""); err == nil {
		t.Error("somebody answered")
	}
	closed := make(chan error, 1)
	go func() { closed <- r.ln.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("close hangs")
	}
}

// TestCoverHangs: a cover that was known and then takes connections without a word is
// noticed by the first client that waits for it.
func TestCoverHangs(t *testing.T) {
	if !soak() {
		t.Skip("takes half a minute: set COMMUCAT_SOAK=1")
	}
	addr := freeAddress(t)
	stop := serveAt(t, addr)
	r := startServer(t, baseConfig(t, addr))
	stop()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() { done <- checkEcho(r.endpoint(), "", 10) }()
	r.awaitHealth(errors.New("does not answer"))
	if err := <-done; err == nil {
		t.Error("somebody answered")
	}
}

// TestCoverRenewed: another certificate is shown and copied without a word.
func TestCoverRenewed(t *testing.T) {
	var current atomic.Pointer[tls.Certificate]
	current.Store(&testAuthority().pair)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: pageHandler(), ErrorLog: quiet(), TLSConfig: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return current.Load(), nil
	}}}
	go func() { _ = srv.ServeTLS(ln, "", "") }()
	defer srv.Close()
	r := startServer(t, baseConfig(t, ln.Addr().String()))
	r.echoAll()
	if err := checkEcho(r.endpoint(), "", 1000); err != nil {
		t.Fatal(err)
	}
	longer := testAuthority().pair
	longer.Certificate = append(longer.Certificate[:len(longer.Certificate):len(longer.Certificate)], longer.Certificate[1])
	current.Store(&longer)
	if err := checkEcho(r.endpoint(), "", 1000); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
}

// TestClock: a client or a server whose clock is off by 90 s is refused, and the server
// says so where the cover tells the time.
func TestClock(t *testing.T) {
	cover := nginxCover(t)
	r := startServer(t, baseConfig(t, cover))
	r.echoAll()
	late := &dialer{now: func() time.Time { return time.Now().Add(-90 * time.Second) }}
	if _, err := late.dial(t.Context(), r.endpoint(), transport.Dial{Roots: testAuthority().roots}); !errors.Is(err, transport.ErrRefused) {
		t.Errorf("client: %v", err)
	}
	s := newRig(t, baseConfig(t, cover))
	s.now = func() time.Time { return time.Now().Add(90 * time.Second) }
	begun := time.Now()
	s.start()
	err := s.awaitHealth(errors.New("clock is"))
	took := time.Since(begun)
	// The cover's date has whole seconds, and is as old as its answer took.
	if skew, ok := statedSkew(err); !ok || skew < 89*time.Second || skew > 92*time.Second+took {
		t.Errorf("message %v", err)
	}
	if err := checkEcho(s.endpoint(), "", 10); !errors.Is(err, transport.ErrRefused) {
		t.Errorf("server: %v", err)
	}
}

// statedSkew is how far ahead of the cover's a message says that the clock is.
func statedSkew(err error) (time.Duration, bool) {
	if err == nil {
		return 0, false
	}
	_, rest, _ := strings.Cut(err.Error(), "clock is ")
	text, _, found := strings.Cut(rest, " ahead")
	skew, bad := time.ParseDuration(text)
	return skew, found && bad == nil
}

// TestReplays: what was accepted once is never accepted again, before and after a
// restart, and is answered as the cover answers it.
func TestReplays(t *testing.T) {
	cover := bareOwn(t)
	r := newRig(t, baseConfig(t, coverSelf))
	var stopped atomic.Pointer[time.Time] // the server's clock, so that no hello runs out
	r.now = func() time.Time {
		if at := stopped.Load(); at != nil {
			return *at
		}
		return time.Now()
	}
	r.start()
	r.awaitHealth(nil)
	r.echoAll()
	var flights [][]byte
	for range 50 {
		flights = append(flights, capture(t, r))
	}
	want := describe(firstAnswer(t, cover, flights[0]), probe{steps: send(flights[0])})
	at := time.Now()
	stopped.Store(&at)
	let := r.ln.figures.entered.Load()
	if int(let) != len(flights) {
		t.Fatalf("%d let in, want %d", let, len(flights))
	}
	total := 1000 // captured first flights that are sent again
	if soak() {
		total *= 100
	}
	again := func(n int) (answered int64) {
		var got atomic.Int64
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := w; i < n; i += 8 {
					if replay(r.addr, flights[i%len(flights)], want) {
						got.Add(1)
					}
				}
			})
		}
		wg.Wait()
		return got.Load()
	}
	if n := again(total / 2); int(n) != total/2 {
		t.Errorf("%d of %d had the cover's answer", n, total/2)
	}
	if n, known := r.ln.figures.entered.Load()-let, r.ln.figures.repeated.Load(); n != 0 || int(known) != total/2 {
		t.Errorf("%d replays were let in, %d recognised", n, known)
	}
	r.config["listen"] = r.addr
	r.restart()
	r.echoAll()
	if n := again(total / 2); int(n) != total/2 {
		t.Errorf("after the restart %d of %d had the cover's answer", n, total/2)
	}
	if n, known := r.ln.figures.entered.Load(), r.ln.figures.repeated.Load(); n != 0 || int(known) != total/2 {
		t.Errorf("after the restart %d replays were let in, %d recognised", n, known)
	}
	stopped.Store(nil)
	if err := checkEcho(r.endpoint(), "", 1000); err != nil {
		t.Errorf("an honest client after all that: %v", err)
	}
	t.Logf("%d replays of %d flights", total, len(flights))
}

// firstAnswer is what the bare cover says to a flight before it waits for more.
func firstAnswer(t *testing.T, addr string, flight []byte) []byte {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(flight); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	var took time.Duration
	if end := drain(c, &got, 5*answerTime, &took, time.Now()); end != "open" || got.Len() == 0 {
		t.Fatalf("the cover said %d bytes and then %s", got.Len(), end)
	}
	return got.Bytes()
}

// replay reports whether a flight met the cover's answer: the same records in the same
// lengths, and no more. The signatures of the leaf have one length.
func replay(addr string, flight []byte, want string) bool {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(flight); err != nil {
		return false
	}
	var got []byte
	for range strings.Count(want, "\n") + 1 {
		head := make([]byte, recordHeader)
		if _, err := io.ReadFull(c, head); err != nil {
			return false
		}
		body := make([]byte, recordSize(head))
		if _, err := io.ReadFull(c, body); err != nil {
			return false
		}
		got = append(append(got, head...), body...)
	}
	return describe(got, probe{steps: send(flight)}) == want
}

// TestCrowd: strangers beyond the limit make the longest silent one of their network
// give way, and never a client.
func TestCrowd(t *testing.T) {
	raw := baseConfig(t, goCover(t))
	raw["strangers"] = 16 // room
	r := startServer(t, raw)
	r.echoAll()
	inside, err := dialRig(t.Context(), r.endpoint(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	const room, came = 16, 100
	ended := make(chan error, came)
	for range came {
		c, err := net.Dial("tcp", r.addr)
		if err != nil { // its place was taken before it knew that it had one
			ended <- err
			continue
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
	}
	// They may be taken in any order: a client that came among them could be taken first.
	for range came - room {
		if err := <-ended; err == nil || isTimeout(err) {
			t.Fatalf("one of %d with room for %d: %v", came, room, err)
		}
	}
	if err := echoOver(inside, 10_000); err != nil {
		t.Errorf("the client inside: %v", err)
	}
	if err := checkEcho(r.endpoint(), "", 1000); err != nil {
		t.Errorf("a client in the crowd: %v", err)
	}
	if n := r.ln.crowd.size(); n > room {
		t.Errorf("%d strangers, want %d at most", n, room)
	}
	if n := r.ln.figures.coverErrors.Load(); n != 0 {
		t.Errorf("who gave way counts as %d failures of the cover", n)
	}
}

// TestPace: a stranger who takes more than is free is slowed.
func TestPace(t *testing.T) {
	p := &pace{free: 1000, rate: 1 << 40}
	p.wait(900)
	if !p.from.IsZero() {
		t.Error("slowed within what is free")
	}
	p.wait(900)
	if p.from.IsZero() {
		t.Error("not slowed beyond it")
	}
	(*pace)(nil).wait(5)
}

// TestConfig: what cannot work is said at the start.
func TestConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(map[string]any)
		want   string
	}{
		"no key":           {func(m map[string]any) { delete(m, "private_key") }, "private_key"},
		"no short id":      {func(m map[string]any) { m["short_ids"] = []any{} }, "short_ids"},
		"no name":          {func(m map[string]any) { delete(m, "server_names") }, "server_names"},
		"bad key":          {func(m map[string]any) { m["private_key"] = "abc" }, "private_key"},
		"bad short id":     {func(m map[string]any) { m["short_ids"] = []any{"0g"} }, "short_ids[0]"},
		"long short id":    {func(m map[string]any) { m["short_ids"] = []any{"00112233445566778899"} }, "short_ids[0]"},
		"bad name":         {func(m map[string]any) { m["server_names"] = []any{"Not A Name"} }, "server_names[0]"},
		"zero window":      {func(m map[string]any) { m["window"] = "0s" }, "window"},
		"wide window":      {func(m map[string]any) { m["window"] = "1h" }, "window"},
		"odd fingerprint":  {func(m map[string]any) { m["fingerprint"] = "opera" }, "fingerprint"},
		"bad cover":        {func(m map[string]any) { m["cover"] = "example.org" }, "cover"},
		"self without key": {func(m map[string]any) { m["cover"] = coverSelf }, "certificate"},
		"bad version":      {func(m map[string]any) { m["client_version"] = "26" }, "client_version"},
		"bad roots":        {func(m map[string]any) { m["roots"] = sdk.NewFile("x", []byte("y")) }, "roots"},
	} {
		raw := baseConfig(t, "127.0.0.1:1")
		tc.change(raw)
		o, err := transport.Open(t.Context(), Plugin(), nil, raw)
		if err == nil {
			_, err = o.Listen(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) || sdk.KindOf(err) != sdk.Invalid {
			t.Errorf("%s: %v (%v)", name, err, sdk.KindOf(err))
		}
		if secret, _ := raw["private_key"].(string); err != nil && len(secret) > 10 && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error holds the key", name)
		}
	}
	if o, err := transport.Open(t.Context(), Plugin(), nil, nil); err != nil {
		t.Errorf("a client needs nothing: %v", err)
	} else if _, err := o.Listen(t.Context()); err == nil {
		t.Error("a server started without a key")
	}
}
