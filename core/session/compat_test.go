package session

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
)

func compatHouse(t testing.TB, clear bool) *house {
	return newHouse(t, func(o *Options, a *account.Options) {
		o.ClearFrames, a.Registration = clear, account.Open
	})
}

// old dials as a peer of the reference.
func (h *house) old(t testing.TB, d *device, agent string) *client {
	t.Helper()
	conn, _ := h.serve(transport.Facts{Transport: "compat", Compat: true, UserAgent: agent})
	c := h.client(t, d, conn)
	c.caps = 0
	c.bendHello = func(x *ccp.Hello) {
		x.Capabilities, x.SupportedVersions, x.ProtocolVersion = []string{"noise", "zstd"}, nil, []byte("1")
	}
	return c
}

func TestCompatEncrypted(t *testing.T) {
	h := compatHouse(t, true)
	d := newDevice(t, "device-1", "alice")
	c := h.old(t, d, "")
	if err := c.connect(); err != nil {
		t.Fatal(err)
	}
	if c.got != 0 || c.ack.Ext != nil || c.auth.DeviceID != "device-1" || c.ack.DeviceCertificate == nil || c.ack.Keepalive == 0 || c.ack.NoiseVersion != 3 {
		t.Errorf("ack %+v", c.ack)
	}
	if c.ext.User.Handle != "alice" || c.ext.User.ID != c.ack.User.ID {
		t.Errorf("message 2 %+v", c.ext)
	}
	exchange(t, h, c)
}

// TestW4TokensAreRandomAndOnlyInsideNoise: W4, W-07. The clear frames carry a public
// id that opens nothing; the token in message 2 is valid at establishment, not before.
func TestW4TokensAreRandomAndOnlyInsideNoise(t *testing.T) {
	h := compatHouse(t, true)
	d := newDevice(t, "device-1", "alice")
	c := h.old(t, d, "")
	if err := c.first(); err != nil {
		t.Fatal(err)
	}
	token := c.ext.Session
	if len(token) != 64 || token == c.auth.Session {
		t.Fatalf("token %q, public id %q", token, c.auth.Session)
	}
	if _, err := h.accounts.Token(t.Context(), token); !errors.Is(err, account.ErrToken) {
		t.Errorf("before establishment: %v", err)
	}
	if h.dir.Count("user") != 0 {
		t.Error("a user was made before message 3 (W2)")
	}
	if err := c.second(); err != nil {
		t.Fatal(err)
	}
	if b, err := h.accounts.Token(t.Context(), token); err != nil || b.Session != c.auth.Session {
		t.Errorf("after establishment: %v", err)
	}
	if c.ack.Session != c.auth.Session {
		t.Error("the clear ack carries something else than the public id")
	}
	if _, err := h.accounts.Token(t.Context(), c.auth.Session); !errors.Is(err, account.ErrToken) {
		t.Error("the public id opens something")
	}
	if strings.Contains(h.dir.Dump(), token) {
		t.Error("the token is stored in clear")
	}
}

// TestW3ClientStatic: a copied Hello with another Noise key is refused after
// message 3.
func TestW3ClientStatic(t *testing.T) {
	h := compatHouse(t, true)
	victim, thief := newDevice(t, "device-1", "alice"), newDevice(t, "device-1", "")
	if err := h.old(t, victim, "").connect(); err != nil {
		t.Fatal(err)
	}
	before := h.note("device-1")
	c := h.old(t, thief, "")
	bend := c.bendHello
	c.bendHello = func(x *ccp.Hello) {
		bend(x)
		x.Identity = victim.identity(t)
		p, _ := identity.ProveStatic(victim.key, testDomain, victim.id, victim.static.Public, nil)
		x.Proof = &ccp.StaticProof{Commitment: p.Commitment, Response: p.Response}
	}
	if code := codeOf(c.connect()); code != ccp.CodeHandshake {
		t.Errorf("code %s", code)
	}
	before.check(t)
}

// TestW5SmallOrderKey: the forged proof of the vectors is refused.
func TestW5SmallOrderKey(t *testing.T) {
	h := compatHouse(t, true)
	var v struct {
		Zkp struct {
			Forgery struct {
				Commitment, Response string
			} `json:"small_order_forgery"`
		}
	}
	readVectors(t, &v)
	c := h.old(t, newDevice(t, "device-1", "alice"), "")
	bend := c.bendHello
	c.bendHello = func(x *ccp.Hello) {
		bend(x)
		x.Identity.DevicePublic = [32]byte{1}
		mustHex(t, x.Proof.Commitment[:], v.Zkp.Forgery.Commitment)
		mustHex(t, x.Proof.Response[:], v.Zkp.Forgery.Response)
	}
	if code := codeOf(c.connect()); code != ccp.CodeHandshake {
		t.Errorf("code %s", code)
	}
}

// TestPeerWithoutExtensionsOnlyByConnectPath: rule 4 of section 1.
func TestPeerWithoutExtensionsOnlyByConnectPath(t *testing.T) {
	h := compatHouse(t, true)
	c := h.old(t, newDevice(t, "device-1", "alice"), "")
	c.conn, _ = h.serve(transport.Facts{Transport: "http2", Entered: true})
	if code := codeOf(c.connect()); code != ccp.CodeHandshake {
		t.Errorf("code %s", code)
	}
}

// TestPairingRequired is what a refused peer of the reference is told, and W-11.
func TestPairingRequired(t *testing.T) {
	h := newHouse(t, nil) // registration by invitation, which an old peer cannot show
	before := h.dir.Dump()
	err := h.old(t, newDevice(t, "device-1", "alice"), "").connect()
	var w *wireError
	if !errors.As(err, &w) {
		t.Fatal(err)
	}
	want := ccp.ErrorBody{Error: "handshake", Detail: "pairing required", Title: "PairingRequired", PairingRequired: true}
	if diff := cmp.Diff(want, w.ErrorBody); diff != "" {
		t.Error(diff)
	}
	if h.dir.Dump() != before {
		t.Error("a refused Hello left something behind (W2)")
	}
}

// TestWithheld: on the connect path nothing is answered before the Hello is
// verified; a probe gets the cover site.
func TestWithheld(t *testing.T) {
	for name, probe := range map[string][]byte{
		"garbage":    []byte("GET / HTTP/1.1\r\n\r\n"),
		"auth frame": {6, 2, 0, 1, 2, '{', '}'},
		"end":        nil,
	} {
		h := newHouse(t, func(o *Options, _ *account.Options) { o.Limits.Handshake = 100 * time.Millisecond })
		a, b := pipe()
		w := &withheldConn{factsConn: factsConn{b, transport.Facts{Transport: "compat", Compat: true}}, refused: make(chan struct{})}
		ended := h.serveConn(w)
		if probe != nil {
			_, _ = a.Write(probe)
		} else {
			a.Close()
		}
		<-ended
		select {
		case <-w.refused:
		default:
			t.Errorf("%s: not handed to the cover", name)
		}
		a.Close()
	}
}

// TestClearFrames is section 4.2 of the sheet: who says it is the CLI gets clear
// frames at once, others when their first bytes are exactly one clear frame.
func TestClearFrames(t *testing.T) {
	join := ccp.Frame{Type: ccp.TypeJoin, Channel: 9, Sequence: 3, Payload: []byte(`{"members":["device-1"],"relay":true}`)}
	send := func(c *client, f ccp.Frame) {
		b, err := ccp.Append(nil, f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("by user agent", func(t *testing.T) {
		h := compatHouse(t, true)
		c := h.old(t, newDevice(t, "device-1", "alice"), "CommuCat-CLI/0.1")
		if err := c.connect(); err != nil {
			t.Fatal(err)
		}
		link := h.relay.link("device-1")
		if !link.box.(relay.Plain).Plain() {
			t.Error("not plain")
		}
		link.box.Push(relay.Delivery{Position: 1, Kind: ccp.TypeMsg, Channel: 9, Body: []byte("queued")})
		f, err := c.readClear()
		if err != nil || string(f.Payload) != "queued" || f.Sequence != 1 {
			t.Fatalf("%+v, %v", f, err)
		}
		send(c, join)
		if f := <-link.frames; f.Type != ccp.TypeJoin {
			t.Errorf("%+v", f)
		}
	})
	t.Run("by the first frame", func(t *testing.T) {
		for _, f := range []ccp.Frame{join, {Type: ccp.TypeLeave, Channel: 1, Sequence: 3, Payload: []byte(`{}`)}} {
			h := compatHouse(t, true)
			c := h.old(t, newDevice(t, "device-1", "alice"), "other")
			if err := c.connect(); err != nil {
				t.Fatal(err)
			}
			link := h.relay.link("device-1")
			send(c, f)
			<-link.frames
			link.box.Control(ccp.TypeAck, 9, []byte(`{"ack":3}`))
			f, err := c.readClear()
			if err != nil || f.Type != ccp.TypeAck || f.Sequence != 3 {
				t.Errorf("%+v, %v", f, err)
			}
		}
	})
	t.Run("a record settles it for ever", func(t *testing.T) {
		h := compatHouse(t, true)
		c := h.old(t, newDevice(t, "device-1", "alice"), "other")
		if err := c.connect(); err != nil {
			t.Fatal(err)
		}
		exchange(t, h, c)
		send(c, join)
		if _, err := c.read(); codeOf(err) != "closed" {
			t.Errorf("clear frame after a record: %v", err)
		}
	})
	t.Run("switched off", func(t *testing.T) {
		h := compatHouse(t, false)
		c := h.old(t, newDevice(t, "device-1", "alice"), "CommuCat-CLI/0.1")
		if err := c.connect(); err != nil {
			t.Fatal(err)
		}
		exchange(t, h, c)
	})
}

// TestClearFramesAfterRecords: a client that turns out to speak clear frames has not
// read what went out as records before. It is not taken for delivered.
func TestClearFramesAfterRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := compatHouse(t, true)
		c := h.old(t, newDevice(t, "device-1", "alice"), "other")
		if err := c.connect(); err != nil {
			t.Fatal(err)
		}
		link := h.relay.link("device-1")
		link.box.Push(relay.Delivery{Position: 7, Kind: ccp.TypeMsg, Channel: 9, Body: []byte("waiting")})
		if _, err := c.conn.Read(make([]byte, 512)); err != nil {
			t.Fatal(err)
		}
		b, _ := ccp.Append(nil, ccp.Frame{Type: ccp.TypeLeave, Channel: 1, Sequence: 3, Payload: []byte(`{}`)})
		if _, err := c.conn.Write(b); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case <-link.gone:
		default:
			t.Error("the connection goes on, and what it carried would count as read")
		}
		if len(link.alive) != 0 {
			t.Errorf("delivered up to %d, unread", <-link.alive)
		}
	})
}

// TestW7BytesBehindAuth: what comes together with the client's Auth belongs to the
// record layer.
func TestW7BytesBehindAuth(t *testing.T) {
	h := compatHouse(t, false)
	c := h.old(t, newDevice(t, "device-1", "alice"), "")
	if err := c.first(); err != nil {
		t.Fatal(err)
	}
	hold := &holdConn{Conn: c.conn}
	c.conn = hold
	if err := c.third(); err != nil {
		t.Fatal(err)
	}
	if err := c.frame(ccp.TypeMsg, 9, []byte("pipelined")); err != nil {
		t.Fatal(err)
	}
	c.conn = hold.Conn
	go func() { _, _ = hold.Conn.Write(hold.held.Bytes()) }()
	if f, err := c.readClear(); err != nil || c.readAck(f) != nil {
		t.Fatal(err)
	}
	if f := <-h.relay.link("device-1").frames; string(f.Payload) != "pipelined" {
		t.Errorf("%+v", f)
	}
}

// TestW8OversizeToOldPeer: a frame over one record never kills its receiver.
func TestW8OversizeToOldPeer(t *testing.T) {
	h := compatHouse(t, false)
	c := h.old(t, newDevice(t, "device-1", "alice"), "")
	if err := c.connect(); err != nil {
		t.Fatal(err)
	}
	link := h.relay.link("device-1")
	if link.box.Push(relay.Delivery{Position: 1, Kind: ccp.TypeMsg, Channel: 9, Body: make([]byte, 70000)}) {
		t.Error("an oversize frame was queued")
	}
	exchange(t, h, c)
}

// TestW17FrameWriter: SSE and NDJSON repeat the header of each frame, so they get
// one unit at a time; unavoidable, documented.
func TestW17FrameWriter(t *testing.T) {
	h := compatHouse(t, false)
	a, b := pipe()
	defer a.Close()
	fc := &framedConn{factsConn: factsConn{b, transport.Facts{Transport: "sse", Compat: true}}}
	h.serveConn(fc)
	c := h.old(t, newDevice(t, "device-1", "alice"), "")
	c.conn.Close()
	c.conn = a
	if err := c.connect(); err != nil {
		t.Fatal(err)
	}
	link := h.relay.link("device-1")
	for i := range 3 {
		link.box.Push(relay.Delivery{Position: uint64(i + 1), Kind: ccp.TypeMsg, Channel: 9, Body: []byte("x")})
		if _, err := c.read(); err != nil {
			t.Fatal(err)
		}
	}
	fc.mu.Lock()
	defer fc.mu.Unlock()
	want := []string{"auth/0/1", "ack/0/2", "msg/9/1", "msg/9/2", "msg/9/3"}
	if diff := cmp.Diff(want, fc.labels); diff != "" {
		t.Error(diff)
	}
}

// TestProofOfDelivery is section 5 "old peers": rows go at the next inbound byte and
// at a clean close, not when a write has merely succeeded.
func TestProofOfDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := compatHouse(t, false)
		c := h.old(t, newDevice(t, "device-1", "alice"), "")
		if err := c.connect(); err != nil {
			t.Fatal(err)
		}
		link := h.relay.link("device-1")
		push := func(pos uint64) {
			link.box.Push(relay.Delivery{Position: pos, Kind: ccp.TypeMsg, Channel: 9, Body: []byte("x")})
			if _, err := c.read(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		push(5)
		time.Sleep(10 * time.Second)
		if len(link.alive) != 0 {
			t.Fatal("written counts as arrived")
		}
		if err := c.raw(nil); err != nil {
			t.Fatal(err)
		}
		if w := <-link.alive; w != 5 {
			t.Errorf("proven up to %d", w)
		}
		push(8)
		c.conn.Close()
		if w := <-link.alive; w != 8 {
			t.Errorf("a clean close proves up to %d", w)
		}
	})
}

// TestReferenceTranscript plays the transcript of the vectors against the server:
// the client's bytes as they are, the server's ephemeral fixed, so that message 2's
// clear part, the handshake and the first record of the client must come out.
func TestReferenceTranscript(t *testing.T) {
	var v struct {
		Transcript []struct {
			Dir   string
			Frame string `json:"frame_hex"`
			Rec   string `json:"record_hex"`
			JSON  string
			What  string
		} `json:"session_transcript_xk"`
	}
	readVectors(t, &v)
	hello := unhex(t, v.Transcript[0].Frame)
	// The server's static key of the vectors is BLAKE3 of 32 x 'b', as a device key
	// of that seed has it.
	seed, err := identity.DeriveDevice([]byte(strings.Repeat("b", 32)))
	if err != nil {
		t.Fatal(err)
	}
	var caSeed [32]byte
	for i := range caSeed {
		caSeed[i] = byte(0x20 + i%16)
	}
	ca, err := identity.NewCA(caSeed[:])
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, func(o *Options, a *account.Options) {
		o.Domain, a.Domain = "example.org", "example.org"
		o.Keys = func() []ServerKey { return []ServerKey{{Version: 1, Pair: noise.KeyPairFrom(seed.Private)}} }
		a.CA = func() identity.CA { return ca }
		a.Clock = func() time.Time { return time.Unix(1760000100, 0) }
		o.Rand = repeat(0x22)
	})
	if _, err := h.accounts.CreateUser(t.Context(), account.Hint{ID: "user-1", Handle: "alice"}); err != nil {
		t.Fatal(err)
	}
	conn, _ := h.serve(transport.Facts{Transport: "compat", Compat: true})
	go func() { _, _ = conn.Write(hello) }()
	c := &client{t: t, h: h, conn: conn}
	f, err := c.readClear()
	if err != nil {
		t.Fatal(err)
	}
	auth, err := ccp.ParseServerAuth(f.Payload)
	if err != nil {
		t.Fatal(err)
	}
	ref, _, err := ccp.Decode(unhex(t, v.Transcript[1].Frame))
	if err != nil {
		t.Fatal(err)
	}
	want, err := ccp.ParseServerAuth(ref.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if f.Sequence != ref.Sequence || auth.DeviceID != want.DeviceID || !bytes.Equal(auth.ServerStatic, want.ServerStatic) || auth.ProtocolVersion != want.ProtocolVersion {
		t.Errorf("auth %+v, want %+v", auth, want)
	}
	if !bytes.Equal(auth.Handshake[:32], want.Handshake[:32]) {
		t.Error("server ephemeral differs from the transcript")
	}
	// The payload of message 2 holds a random token, so message 3 of the transcript
	// cannot fit; it must be refused as anything else that does not.
	if _, err := conn.Write(unhex(t, v.Transcript[2].Frame)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.readClear(); codeOf(err) != ccp.CodeHandshake {
		t.Errorf("message 3 of another handshake: %v", err)
	}
	if h.dir.Count("device") != 0 {
		t.Error("a device was stored")
	}
}

type repeat byte

func (r repeat) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r)
	}
	return len(b), nil
}

// holdConn keeps writes back.
type holdConn struct {
	net.Conn
	held bytes.Buffer
}

func (c *holdConn) Write(b []byte) (int, error) { return c.held.Write(b) }

func pipe() (client, server net.Conn) { return net.Pipe() }

func readVectors(t testing.TB, v any) {
	t.Helper()
	b, err := os.ReadFile("testdata/ccp1.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustHex(t testing.TB, dst []byte, s string) {
	t.Helper()
	copy(dst, unhex(t, s))
}
