package reality

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	utls "github.com/refraction-networking/utls"

	"github.com/commucat/commucat/sdk/transport"
)

// withTap keeps the first write of a dial.
func withTap(first *[]byte) transport.Dial {
	return transport.Dial{Roots: testAuthority().roots, DialTCP: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &firstWrite{TCPConn: c.(*net.TCPConn), first: first}, nil
	}}
}

type firstWrite struct {
	*net.TCPConn
	first *[]byte
}

func (f *firstWrite) Write(p []byte) (int, error) {
	if *f.first == nil {
		*f.first = bytes.Clone(p)
	}
	return f.TCPConn.Write(p)
}

func record(kind byte, body []byte) []byte {
	b := []byte{kind, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(b[3:], uint16(len(body)))
	return append(b, body...)
}

func randomBytes(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(n)})
	_, _ = r.Read(b)
	return b
}

// hello makes a browser's hello record; shape may change the claim or the name before
// it is sealed. A nil shape seals nothing.
type shape struct {
	params
	profile string
	now     time.Time
	spec    func(*utls.ClientHelloSpec)
	plain   bool
}

func (s shape) record(t testing.TB) []byte {
	prof, err := chooseProfile(s.profile, s.params, s.now)
	if err != nil {
		t.Fatal(err)
	}
	conn := utls.UClient(nil, &utls.Config{ServerName: s.name, SessionTicketsDisabled: true, InsecureSkipVerify: true}, utls.HelloCustom)
	spec, err := prof.hello()
	if err != nil {
		t.Fatal(err)
	}
	if s.spec != nil {
		s.spec(&spec)
	}
	if err := conn.ApplyPreset(&spec); err != nil {
		t.Fatal(err)
	}
	if prof.finish != nil {
		if err := prof.finish(conn); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.BuildHandshakeState(); err != nil {
		t.Fatal(err)
	}
	if !s.plain {
		a := &attempt{params: s.params, profile: prof, now: s.now}
		if err := a.seal(conn); err != nil {
			t.Fatal(err)
		}
	}
	b := record(typeHandshake, conn.HandshakeState.Hello.Raw)
	b[2] = 1
	return b
}

// probeKinds are the battery's kinds; each makes a new probe at every call.
func probeKinds(t testing.TB, r *rig) []maker {
	p, err := parseParams(r.endpoint(), "")
	if err != nil {
		t.Fatal(err)
	}
	captured := capture(t, r)
	k := &kinds{t: t, good: shape{params: p, profile: "chrome"}, captured: captured}
	k.junk()
	k.records()
	k.strangers()
	k.nearly()
	k.replays()
	k.withheld()
	return k.all
}

type kinds struct {
	t        testing.TB
	good     shape
	captured []byte
	all      []maker
}

// add takes the steps of a kind, with a wait for silence and with an end at once.
func (k *kinds) add(kind string, steps func() []step) {
	k.seeded(kind, func(uint64) []step { return steps() })
}

func (k *kinds) seeded(kind string, steps func(uint64) []step) {
	k.all = append(k.all,
		func(seed uint64) probe { return probe{kind: kind, steps: steps(seed)} },
		func(seed uint64) probe {
			return probe{kind: kind + ", then the end", steps: steps(seed), endAtOnce: true}
		})
}

func (k *kinds) sealed(change func(*shape)) []byte {
	s := k.good
	s.now = time.Now()
	if change != nil {
		change(&s)
	}
	return s.record(k.t)
}

func (k *kinds) stranger(change func(*shape)) []byte {
	return k.sealed(func(s *shape) {
		s.plain = true
		if change != nil {
			change(s)
		}
	})
}

func (k *kinds) junk() {
	k.add("nothing", func() []step { return nil })
	for _, n := range []int{1, 5, 6, 64, 517, 4096, 40000} {
		k.seeded(fmt.Sprintf("%d random bytes", n), func(seed uint64) []step { return send(randomBytes(n, seed)) })
		k.add(fmt.Sprintf("%d zeros", n), func() []step { return send(make([]byte, n)) })
	}
	for name, text := range map[string]string{
		"HTTP request": "GET / HTTP/1.1\r\nHost: " + siteName + "\r\n\r\n", "CONNECT": "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
		"HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "SSH": "SSH-2.0-OpenSSH_9.6\r\n", "SOCKS": "\x05\x01\x00", "SMTP": "EHLO x\r\n",
		"SSL 2 hello": "\x80\x2e\x01\x03\x03\x00\x15\x00\x00\x00\x10\x07\x00\xc0" + string(make([]byte, 40)),
	} {
		k.add(name, func() []step { return send([]byte(text)) })
	}
}

func (k *kinds) records() {
	for name, b := range map[string][]byte{
		"alert first": {21, 3, 3, 0, 2, 2, 40}, "change cipher spec first": {20, 3, 3, 0, 1, 1}, "data first": record(typeApplicationData, make([]byte, 40)),
		"empty handshake record": {22, 3, 1, 0, 0}, "oversize header": {22, 3, 1, 0x48, 1}, "largest header": {22, 3, 1, 0xff, 0xff},
		"header alone": {22, 3, 1, 2, 0}, "half a header": {22, 3, 1}, "hello request": record(22, []byte{0, 0, 0, 0}),
		"server hello": record(22, append([]byte{2, 0, 0, 70}, make([]byte, 70)...)), "heartbeat": {24, 3, 3, 0, 3, 1, 0x40, 0},
	} {
		k.add(name, func() []step { return send(b) })
	}
	for _, v := range [][2]byte{{0, 0}, {2, 0}, {3, 0}, {3, 3}, {3, 4}, {3, 5}, {16, 0}} {
		k.add(fmt.Sprintf("hello in record version %x", v), func() []step {
			b := k.stranger(nil)
			b[1], b[2] = v[0], v[1]
			return send(b)
		})
	}
	k.add("message length too small", func() []step { b := k.stranger(nil); b[8]--; return send(b) })
	k.add("message length too large", func() []step { b := k.stranger(nil); b[8]++; return send(b) })
	k.add("record length too small", func() []step { b := k.stranger(nil); b[4]--; return send(b) })
	k.add("hello in two records", func() []step {
		b := k.stranger(nil)[recordHeader:]
		return send(record(22, b[:100]), record(22, b[100:]))
	})
	k.add("hello twice", func() []step { b := k.stranger(nil); return send(b, b) })
}

func (k *kinds) strangers() {
	for _, name := range []string{"chrome", "firefox", "safari", "ios"} {
		k.add("hello of "+name, func() []step { return send(k.stranger(func(s *shape) { s.profile = name })) })
	}
	edit := func(kind string, change func(*utls.ClientHelloSpec)) {
		k.add(kind, func() []step { return send(k.stranger(func(s *shape) { s.spec = change })) })
	}
	without := func(drop func(utls.TLSExtension) bool) func(*utls.ClientHelloSpec) {
		return func(s *utls.ClientHelloSpec) { s.Extensions = slices.DeleteFunc(s.Extensions, drop) }
	}
	edit("no name", without(func(e utls.TLSExtension) bool { _, ok := e.(*utls.SNIExtension); return ok }))
	edit("no protocols", without(func(e utls.TLSExtension) bool { _, ok := e.(*utls.ALPNExtension); return ok }))
	edit("no key share", without(func(e utls.TLSExtension) bool { _, ok := e.(*utls.KeyShareExtension); return ok }))
	edit("TLS 1.2 at most", without(func(e utls.TLSExtension) bool { _, ok := e.(*utls.SupportedVersionsExtension); return ok }))
	edit("unknown suites", func(s *utls.ClientHelloSpec) { s.CipherSuites = []uint16{0x1234, 0x00ff} })
	edit("odd protocol", func(s *utls.ClientHelloSpec) {
		for _, e := range s.Extensions {
			if a, ok := e.(*utls.ALPNExtension); ok {
				a.AlpnProtocols = []string{"odd/1"}
			}
		}
	})
	edit("P-256 alone", func(s *utls.ClientHelloSpec) {
		for _, e := range s.Extensions {
			switch e := e.(type) {
			case *utls.KeyShareExtension:
				e.KeyShares = []utls.KeyShare{{Group: utls.CurveP256}}
			case *utls.SupportedCurvesExtension:
				e.Curves = []utls.CurveID{utls.CurveP256}
			}
		}
	})
	for _, name := range []string{"alt.example.test", "other.example", "xn--bcher-kva.example"} {
		k.add("name "+name, func() []step { return send(k.stranger(func(s *shape) { s.name = name })) })
	}
	k.after("stranger", func() []byte { return k.stranger(nil) })
	for _, n := range []int{3, 43, 300, 1000} {
		k.add(fmt.Sprintf("hello cut after %d bytes", n), func() []step { return send(k.stranger(nil)[:n]) })
	}
	k.add("hello in pieces", func() []step { return []step{{data: k.stranger(nil), pieces: 40}} })
}

// after adds what may follow a hello before the client has finished.
func (k *kinds) after(who string, hello func() []byte) {
	spec := []byte{20, 3, 3, 0, 1, 1}
	for name, b := range map[string][]byte{
		"junk as Finished": record(typeApplicationData, make([]byte, 53)), "largest junk": record(typeApplicationData, make([]byte, maxCipher)),
		"an empty data record": record(typeApplicationData, nil), "data in clear": record(typeApplicationData, []byte("GET / HTTP/1.1\r\n\r\n")),
		"close_notify in clear": {21, 3, 3, 0, 2, 1, 0}, "fatal alert in clear": {21, 3, 3, 0, 2, 2, 42}, "user_canceled": {21, 3, 3, 0, 2, 1, 90},
		"Finished in clear": record(22, append([]byte{20, 0, 0, 32}, make([]byte, 32)...)), "an oversize header": {23, 3, 3, 0x41, 1},
		"a bad ChangeCipherSpec": {20, 3, 3, 0, 1, 2}, "a long ChangeCipherSpec": {20, 3, 3, 0, 2, 1, 1}, "an old version": {23, 3, 1, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10},
		"an unknown type": {99, 3, 3, 0, 1, 1}, "half a record": {23, 3, 3, 0, 60, 1, 2, 3}, "a header": {23, 3, 3, 0, 60},
		"a specification and junk": append(bytes.Clone(spec), record(typeApplicationData, make([]byte, 53))...),
	} {
		k.add(who+", then "+name, func() []step { return []step{{data: hello()}, {data: b}} })
	}
	for _, n := range []int{1, 16, 17, 18, 31, 32, 33, 34, 40} {
		k.add(fmt.Sprintf("%s, then %d ChangeCipherSpec", who, n), func() []step { return []step{{data: hello()}, {data: bytes.Repeat(spec, n)}} })
	}
	k.add(who+", then 40 ChangeCipherSpec one by one", func() []step {
		return []step{{data: hello()}, {data: bytes.Repeat(spec, 40), pieces: 40}}
	})
}

// nearly are hellos that lack one thing to be let in.
func (k *kinds) nearly() {
	change := func(kind string, f func(*shape)) { k.add(kind, func() []step { return send(k.sealed(f)) }) }
	change("unknown short id", func(s *shape) { s.id = shortID{1, 2, 3} })
	change("other key", func(s *shape) {
		d := newDraft(k.t)
		s.public, _ = parsePublic(d.PublicKey)
	})
	change("clock 61 s behind", func(s *shape) { s.now = s.now.Add(-61 * time.Second) })
	change("clock 62 s ahead", func(s *shape) { s.now = s.now.Add(62 * time.Second) })
	change("time zero", func(s *shape) { s.now = time.Unix(0, 0) })
	change("sealed for another name", func(s *shape) { s.name = "alt.example.test" })
	flip := func(kind string, at func(b []byte) int) {
		k.add(kind, func() []step {
			b := k.sealed(nil)
			b[at(b)] ^= 1
			return send(b)
		})
	}
	flip("flipped bit in the random", func([]byte) int { return recordHeader + randomOffset + 3 })
	flip("flipped bit in the nonce", func([]byte) int { return recordHeader + randomOffset + 25 })
	flip("flipped bit in the session id", func([]byte) int { return recordHeader + sessionOffset + 2 })
	flip("flipped bit in the tag", func([]byte) int { return recordHeader + sessionOffset + 30 })
	flip("flipped bit in the name", func(b []byte) int { return bytes.Index(b, []byte(siteName)) })
	flip("flipped bit in the share", func(b []byte) int {
		h, _ := parseClientHello(b[recordHeader:])
		return bytes.Index(b, h.share()) + 5
	})
	k.add("genuine in two records", func() []step {
		b := k.sealed(nil)[recordHeader:]
		return send(record(22, b[:200]), record(22, b[200:]))
	})
	k.add("genuine with a byte behind it", func() []step { return send(k.sealed(nil), []byte{22}) })
	k.add("genuine but for its last byte", func() []step { b := k.sealed(nil); return send(b[:len(b)-1]) })
}

func (k *kinds) replays() {
	k.add("replay in pieces", func() []step { return []step{{data: k.captured, pieces: 20}} })
	k.add("replay in another record version", func() []step {
		b := bytes.Clone(k.captured)
		b[2] = 3
		return send(b)
	})
	k.add("replay cut", func() []step { return send(k.captured[:len(k.captured)-9]) })
	k.after("replay", func() []byte { return k.captured })
}

// withheld are genuine hellos that somebody on the way has kept from the server and now
// delivers, without the keys to go on.
func (k *kinds) withheld() {
	k.add("withheld", func() []step { return send(k.sealed(nil)) })
	k.add("withheld in pieces", func() []step { return []step{{data: k.sealed(nil), pieces: 20}} })
	k.after("withheld", func() []byte { return k.sealed(nil) })
	k.add("withheld of firefox", func() []step { return send(k.sealed(func(s *shape) { s.profile = "firefox" })) })
	k.add("withheld of ios", func() []step { return send(k.sealed(func(s *shape) { s.profile = "ios" })) })
}

// TestStrangersSeeTheSite: whole requests of ordinary clients.
func TestStrangersSeeTheSite(t *testing.T) {
	for name, cover := range covers(t) {
		t.Run(name, func(t *testing.T) {
			r := startServer(t, baseConfig(t, cover))
			for _, c := range []*tls.Config{
				{NextProtos: []string{"h2", "http/1.1"}}, {NextProtos: []string{"http/1.1"}}, {},
			} {
				c.ServerName, c.RootCAs = siteName, testAuthority().roots
				conn, err := tls.Dial("tcp", r.addr, c)
				if err != nil {
					t.Errorf("%v: %v", c.NextProtos, err)
					continue
				}
				if got := conn.ConnectionState().PeerCertificates[0]; !bytes.Equal(got.Raw, testAuthority().pair.Certificate[0]) {
					t.Errorf("%v: another certificate", c.NextProtos)
				}
				_ = conn.Close()
			}
			p, err := visitCover(context.Background(), testSite(t, r.addr), siteName, testAuthority().roots)
			if err != nil || p.status != 200 {
				t.Errorf("page: %+v, %v", p, err)
			}
		})
	}
}
