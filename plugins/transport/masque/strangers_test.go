package masque

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/commucat/commucat/sdk/transport"
)

// bare is the same site by the same library without a relay.
func bare(t *testing.T, r *relay) string {
	t.Helper()
	s := r.server.(*server)
	cert, _, err := certificate(s.cfg, r.state, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	pc, _ := forQUIC(udp)
	key := quic.StatelessResetKey{1}
	tr := &quic.Transport{Conn: pc, StatelessResetKey: &key}
	ln, err := tr.ListenEarly(http3.ConfigureTLSConfig(serverTLS(cert, http3.NextProtoH3)), &quic.Config{
		Versions: []quic.Version{quic.Version1, quic.Version2}, MaxIdleTimeout: 30 * time.Second, MaxIncomingStreams: 100, EnableDatagrams: s.cfg.UDP,
	})
	if err != nil {
		t.Fatal(err)
	}
	h3 := &http3.Server{Handler: page, EnableDatagrams: s.cfg.UDP, MaxHeaderBytes: maxHeader, IdleTimeout: idleTime}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = h3.ServeListener(ln)
	}()
	t.Cleanup(func() {
		_ = h3.Close()
		_ = ln.Close()
		<-over
		_ = tr.Close()
		_ = udp.Close()
	})
	return udp.LocalAddr().String()
}

// probe is one input; what both servers make of it is compared.
type probe struct {
	name string
	run  func(t *testing.T, c *quic.Conn) string
}

// stranger connects without verifying.
func stranger(t *testing.T, addr string, version quic.Version) *quic.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	pc, _ := forQUIC(udp)
	tr := &quic.Transport{Conn: pc}
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tr.Dial(ctx, to, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}, ServerName: "relay.example"},
		&quic.Config{EnableDatagrams: true, Versions: []quic.Version{version}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.CloseWithError(0, "")
		_ = tr.Close()
		_ = udp.Close()
	})
	return c
}

// wait bounds how long an answer may take to go on.
const wait = 300 * time.Millisecond

// said reads a stream to its end, or until nothing comes any more.
func said(s interface {
	io.Reader
	SetReadDeadline(time.Time) error
}) string {
	var got []byte
	buf := make([]byte, 4096)
	for {
		_ = s.SetReadDeadline(time.Now().Add(wait))
		n, err := s.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			return hex.EncodeToString(got) + " " + ending(err)
		}
	}
}

func ending(err error) string {
	var app *quic.ApplicationError
	var stream *quic.StreamError
	switch {
	case err == io.EOF:
		return "end"
	case errors.As(err, &app):
		return fmt.Sprintf("closed %#x %q", uint64(app.ErrorCode), app.ErrorMessage)
	case errors.As(err, &stream):
		return fmt.Sprintf("reset %#x", uint64(stream.ErrorCode))
	case errors.Is(err, context.DeadlineExceeded):
		return "open"
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return "open"
	}
	return err.Error()
}

// frame is an HTTP/3 frame.
func frame(kind uint64, payload []byte) []byte {
	b := quicvarint.Append(nil, kind)
	b = quicvarint.Append(b, uint64(len(payload)))
	return append(b, payload...)
}

// onRequest sends bytes on a request stream.
func onRequest(name string, b []byte, fin bool) probe {
	return probe{name, func(t *testing.T, c *quic.Conn) string {
		s, err := c.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write(b)
		if fin {
			_ = s.Close()
		}
		return said(s) + howClosed(c)
	}}
}

// onControl sends bytes on a unidirectional stream of a type.
func onControl(name string, kind uint64, b []byte, fin bool) probe {
	return probe{name, func(t *testing.T, c *quic.Conn) string {
		s, err := c.OpenUniStream()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.Write(append(quicvarint.Append(nil, kind), b...))
		if fin {
			_ = s.Close()
		}
		select {
		case <-s.Context().Done():
			return ending(context.Cause(s.Context())) + howClosed(c)
		case <-time.After(wait):
			return "open" + howClosed(c)
		}
	}}
}

// closing2 says how the connection ended, if it did.
func howClosed(c *quic.Conn) string {
	select {
	case <-c.Context().Done():
		return " / " + ending(context.Cause(c.Context()))
	case <-time.After(20 * time.Millisecond):
		return ""
	}
}

// asked is a well-formed request.
func asked(name string, change func(t *testing.T, c *quic.Conn, r *http.Request)) probe {
	return probe{name, func(t *testing.T, c *quic.Conn) string {
		cc := (&http3.Transport{EnableDatagrams: true}).NewClientConn(c)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://relay.example/", nil)
		if err != nil {
			t.Fatal(err)
		}
		change(t, c, r)
		<-cc.ReceivedSettings()
		settings := fmt.Sprint(*cc.Settings())
		s, err := cc.OpenRequestStream(ctx)
		if err != nil {
			return ending(err)
		}
		if err := s.SendRequestHeader(r); err != nil {
			return ending(err)
		}
		if r.Method == http.MethodConnect { // a body that was touched before shows
			_, _ = s.Write([]byte("hello"))
		}
		if r.Header.Get("Expect") == "" {
			_ = s.Close()
		}
		_ = s.SetReadDeadline(time.Now().Add(2 * wait))
		resp, err := s.ReadResponse()
		if err != nil {
			return settings + " " + ending(err)
		}
		resp.Header.Del("Date")
		var head bytes.Buffer
		_ = resp.Header.Write(&head)
		_ = s.SetReadDeadline(time.Now().Add(wait))
		body, err := io.ReadAll(resp.Body)
		end := "end"
		if err != nil {
			end = ending(err)
		}
		return fmt.Sprintf("%s %d %s %q %s%s", settings, resp.StatusCode, head.String(), body, end, howClosed(c))
	}}
}

func connect(protocol, path string) func(*testing.T, *quic.Conn, *http.Request) {
	return func(_ *testing.T, _ *quic.Conn, r *http.Request) {
		r.Method, r.Proto, r.URL.Path = http.MethodConnect, protocol, path
		if protocol == "" {
			r.URL.Path = ""
		}
	}
}

// battery are the inputs; overheard is a proof that was good on another connection,
// expired and revoked are keys that were good.
func battery(overheard string, expired, revoked invitation) []probe {
	path := udpPath + "relay.example/443/"
	proof := func(v invitation) func(*testing.T, *quic.Conn, *http.Request) {
		return func(t *testing.T, c *quic.Conn, r *http.Request) {
			connect("", "")(t, c, r)
			state := c.ConnectionState()
			value, err := v.credentials(state.TLS.ExportKeyingMaterial, "relay.example", 443)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Proxy-Authorization", value)
		}
	}
	with := func(name, value string, f func(*testing.T, *quic.Conn, *http.Request)) func(*testing.T, *quic.Conn, *http.Request) {
		return func(t *testing.T, c *quic.Conn, r *http.Request) {
			f(t, c, r)
			r.Header.Set(name, value)
		}
	}
	method := func(m, p string) func(*testing.T, *quic.Conn, *http.Request) {
		return func(_ *testing.T, _ *quic.Conn, r *http.Request) { r.Method, r.URL.Path = m, p }
	}
	settings := func(pairs ...uint64) []byte {
		var b []byte
		for _, v := range pairs {
			b = quicvarint.Append(b, v)
		}
		return frame(4, b)
	}
	out := []probe{
		asked("GET /", method("GET", "/")), asked("GET unknown", method("GET", "/x")), asked("HEAD", method("HEAD", "/")),
		asked("DELETE", method("DELETE", "/")), asked("unknown method", method("FROB", "/")), asked("GET template", method("GET", path)),
		asked("GET with proof", with("Authorization", overheard, method("GET", "/"))),
		asked("CONNECT", connect("", "")), asked("CONNECT left open", with("Expect", "nothing", connect("", ""))),
		asked("CONNECT basic", with("Proxy-Authorization", "Basic eDp5", connect("", ""))),
		asked("CONNECT bearer", with("Proxy-Authorization", "Bearer abc", connect("", ""))),
		asked("CONNECT replayed proof", with("Proxy-Authorization", overheard, connect("", ""))),
		asked("CONNECT replayed proof elsewhere", with("Authorization", overheard, connect("", ""))),
		asked("CONNECT cut proof", with("Proxy-Authorization", overheard[:len(overheard)-9], connect("", ""))),
		asked("CONNECT long header", with("Proxy-Authorization", "Concealed k="+strings.Repeat("A", 9000), connect("", ""))),
		asked("CONNECT expired", proof(expired)), asked("CONNECT revoked", proof(revoked)),
		asked("connect-udp", connect(protocolUDP, path)), asked("connect-udp replayed", with("Proxy-Authorization", overheard, connect(protocolUDP, path))),
		asked("connect-udp bad path", connect(protocolUDP, "/masque/x")), asked("websocket", connect(protocolWebSocket, "/")),
		asked("webtransport", connect("webtransport", "/")), asked("connect-ip", connect("connect-ip", "/.well-known/masque/ip/*/*/")),
		asked("capsule header", with(capsuleHeader, capsuleYes, connect(protocolUDP, path))),
		onRequest("nothing", nil, true), onRequest("DATA first", frame(0, []byte("x")), false), onRequest("SETTINGS on a request", settings(1, 0), false),
		onRequest("reserved type 2", frame(2, nil), false), onRequest("reserved type 6", frame(6, []byte{1}), false),
		onRequest("grease frame", frame(0x1f*7+0x21, []byte("grease")), true), onRequest("PUSH_PROMISE", frame(5, []byte{0, 0}), true),
		onRequest("bad QPACK", frame(1, []byte{0xff, 0xff, 0xff, 0xff}), true), onRequest("empty HEADERS", frame(1, nil), true),
		onRequest("HEADERS cut", frame(1, make([]byte, 40))[:20], true), onRequest("HEADERS too long", frame(1, make([]byte, maxHeader+1)), true),
		onRequest("priority update of a push", frame(0xf0701, []byte{0}), false),
		onControl("control", 0, settings(), false), onControl("unknown settings", 0, settings(0x1f*9+0x21, 7, 0x4242, 1<<40), false),
		onControl("setting twice", 0, settings(6, 1, 6, 1), false), onControl("datagram setting 2", 0, settings(0x33, 2), false),
		onControl("HTTP/2 setting", 0, settings(2, 0), false), onControl("settings twice", 0, append(settings(), settings()...), false),
		onControl("control without settings", 0, frame(7, []byte{0}), false), onControl("control cut", 0, nil, true),
		onControl("control ends", 0, settings(), true), onControl("push stream", 1, []byte{0}, false), onControl("encoder", 2, []byte{0x3f, 0xff, 0xff}, false),
		onControl("decoder", 3, []byte{0xff}, false), onControl("grease stream", 0x1f*5+0x21, []byte("grease"), false),
		onControl("GOAWAY", 0, append(settings(), frame(7, []byte{4})...), false), onControl("MAX_PUSH_ID", 0, append(settings(), frame(13, []byte{1})...), false),
		{"two control streams", func(t *testing.T, c *quic.Conn) string {
			return onControl("", 0, settings(), false).run(t, c) + onControl("", 0, settings(), false).run(t, c)
		}},
		{"datagram without a stream", func(t *testing.T, c *quic.Conn) string {
			_ = onControl("", 0, settings(0x33, 1), false).run(t, c)
			_ = c.SendDatagram([]byte{0, 0, 1, 2})
			_ = c.SendDatagram(nil)
			time.Sleep(wait)
			return howClosed(c)
		}},
		{"settings of the site", func(t *testing.T, c *quic.Conn) string {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			s, err := c.AcceptUniStream(ctx)
			if err != nil {
				return ending(err)
			}
			return fmt.Sprint(said(s), c.ConnectionState().SupportsDatagrams.Remote)
		}},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 24 {
		b := make([]byte, 1+r.IntN(300))
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		out = append(out, onRequest(fmt.Sprintf("random request %d", i), b, i%2 == 0), onControl(fmt.Sprintf("random control %d", i), 0, b, false))
	}
	return out
}

// TestStrangersSeeTheBareSite: over HTTP/3 nothing that a stranger sends is answered
// otherwise than by the same site without a relay.
func TestStrangersSeeTheBareSite(t *testing.T) {
	r := start(t, map[string]any{"source_connections": 1000}, func(net.Conn) { t.Error("a stranger got in") })
	reference := bare(t, r)
	target := r.server.Addr().String()

	invite := func(id string, expires time.Time) invitation {
		e, err := r.server.Invite(t.Context(), "relay.example", transport.Guest{ID: id, Expires: expires})
		if err != nil {
			t.Fatal(err)
		}
		v, err := readInvitation(e, transport.Dial{})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	expired, revoked, good := invite("expired", time.Now().Add(-time.Minute)), invite("revoked", time.Time{}), invite("good", time.Time{})
	if err := r.server.Revoke(t.Context(), "revoked"); err != nil {
		t.Fatal(err)
	}
	heard := stranger(t, target, quic.Version1).ConnectionState()
	overheard, err := good.credentials(heard.TLS.ExportKeyingMaterial, "relay.example", 443)
	if err != nil {
		t.Fatal(err)
	}
	probes := battery(overheard, expired, revoked)
	if len(probes) < 90 {
		t.Fatalf("%d probes", len(probes))
	}
	t.Logf("%d probes", len(probes))
	// Some answers are a race between a stream's error and its connection's end, in
	// the bare site as well: a difference counts when it shows each time.
	for _, p := range probes {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			var seen [2][]string
			for range 6 {
				var both sync.WaitGroup
				var got [2]string
				for i, addr := range []string{target, reference} {
					both.Go(func() { got[i] = p.run(t, stranger(t, addr, quic.Version1)) })
				}
				both.Wait()
				seen[0], seen[1] = append(seen[0], got[0]), append(seen[1], got[1])
				if slices.Contains(seen[1], got[0]) || slices.Contains(seen[0], got[1]) {
					return
				}
			}
			t.Errorf("the site answers %q\nthe bare one %q", seen[0], seen[1])
		})
	}
}

// answered says what comes for one packet.
func answered(t *testing.T, addr string, b []byte) string {
	t.Helper()
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 2000)
	n, err := c.Read(buf)
	switch {
	case err != nil:
		return "silent"
	case buf[0]&0x80 != 0: // first byte and the greased version are random
		return fmt.Sprintf("long header, %d bytes, version %x", n, buf[1:5])
	}
	return fmt.Sprintf("short header, %v bytes", n > 20)
}

// packets sent without a connection: version negotiation, garbage, replay, stateless reset.
func TestStrangersPackets(t *testing.T) {
	r := start(t, nil, func(net.Conn) { t.Error("a stranger got in") })
	target, reference := r.server.Addr().String(), bare(t, r)
	initial := func(version uint32) []byte {
		b := []byte{0xc3, byte(version >> 24), byte(version >> 16), byte(version >> 8), byte(version), 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0x44, 0x90}
		return append(b, make([]byte, 1200-len(b))...)
	}
	for name, b := range map[string][]byte{
		"unknown version": initial(0x0a1a2a3a), "version 0": initial(0), "version 1, undecryptable": initial(1),
		"version 2, undecryptable": initial(0x6b3343cf), "a small unknown version": initial(0x0a1a2a3a)[:300],
		"short header": append([]byte{0x43}, make([]byte, 60)...), "short header, small": append([]byte{0x43}, make([]byte, 20)...),
		"empty": {}, "not QUIC": []byte("GET / HTTP/1.1\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			var got [2]string
			for i, addr := range []string{target, reference} {
				got[i] = answered(t, addr, b)
			}
			if got[0] != got[1] {
				t.Errorf("the site %s, the bare one %s", got[0], got[1])
			}
			t.Log(got[0])
		})
	}
	// A client's first packet, sent again by who overheard it.
	var got [2]string
	for i, addr := range []string{target, reference} {
		to, err := net.ResolveUDPAddr("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		n := newNAT(t, to)
		stranger(t, n.in.LocalAddr().String(), quic.Version1)
		got[i] = answered(t, addr, *n.first.Load())
	}
	if got[0] != got[1] {
		t.Errorf("a replay: the site %s, the bare one %s", got[0], got[1])
	}
	// Both versions of QUIC are spoken.
	for _, v := range []quic.Version{quic.Version1, quic.Version2} {
		if got := stranger(t, target, v).ConnectionState().Version; got != v {
			t.Errorf("version %v instead of %v", got, v)
		}
	}
}
