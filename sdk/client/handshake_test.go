package client

import (
	"bytes"
	"crypto/ed25519"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/noise"
	"github.com/commucat/commucat/sdk/transport"
)

// TestMiddle puts somebody between: none of it may lead to a Confirm.
func TestMiddle(t *testing.T) {
	const all = ccp.AllCapabilities
	for _, tc := range []struct {
		name     string
		promised ccp.Capabilities
		set      func(r *relay, p *Profile)
		kind     Kind
		text     string
	}{
		{"stripped capabilities", 0, func(r *relay, _ *Profile) {
			r.hello = func(b []byte) []byte { return bytes.Replace(b, []byte(`"pq"`), []byte(`"no"`), 1) }
		}, Downgraded, "changed the handshake"},
		{"changed hello", all, func(r *relay, _ *Profile) {
			r.hello = func(b []byte) []byte { return bytes.Replace(b, []byte(`{`), []byte(`{ `), 1) }
		}, Downgraded, "changed the handshake"},
		{"accepts what was not offered", 0, func(r *relay, _ *Profile) {
			r.answer = func(a *ccp.Answer) { a.Accepted = append(a.Accepted, "sealed") }
		}, Downgraded, "changed the handshake"},
		{"breaks a rule", 0, func(r *relay, _ *Profile) {
			r.answer = func(a *ccp.Answer) { a.Accepted = []string{"records", "ack"} }
		}, Downgraded, "changed the handshake"},
		{"swapped noise key", 0, func(_ *relay, p *Profile) { p.Relay.Noise[0] ^= 1 }, Broken, "refused the handshake"},
		{"another noise key answers", 0, func(r *relay, _ *Profile) {
			r.auth = func(a *ccp.ServerAuth) { a.Handshake[40] ^= 1 }
		}, Downgraded, "relay's key"},
		{"other domain", 0, func(r *relay, _ *Profile) {
			r.ext = func(e *ccp.Ext) { e.Domain = "evil\n.example" }
		}, Downgraded, "evil?.example"},
		{"less than promised", all &^ ccp.PQ, func(r *relay, _ *Profile) { r.caps = all &^ (ccp.Resume | ccp.PQ) }, Downgraded, "resume is missing"},
		{"without extensions", 0, func(r *relay, _ *Profile) {
			r.ext = func(e *ccp.Ext) { e.Answer = nil }
		}, Downgraded, "lacks the extensions"},
		{"plain to a pq client", all, func(r *relay, _ *Profile) {
			r.auth = func(a *ccp.ServerAuth) { a.PQ = nil }
		}, Downgraded, "post-quantum"},
		{"other pq secret", all, func(r *relay, _ *Profile) {
			r.auth = func(a *ccp.ServerAuth) { a.PQ[9] ^= 1 }
		}, Broken, "handshake"},
		{"below the catalogue's min", 0, func(r *relay, p *Profile) {
			r.caps = all &^ ccp.Resume
			p.Relay.Min = []string{"resume"}
		}, Downgraded, "demands resume"},
		{"min of a newer version", 0, func(_ *relay, p *Profile) { p.Relay.Min = []string{"telepathy"} }, Invalid, "newer version"},
		{"protocol version", 0, func(r *relay, _ *Profile) {
			r.ext = func(e *ccp.Ext) { e.ProtocolVersion = 2 }
		}, Downgraded, "version"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRelay(t)
			opt := r.options(tc.promised)
			tc.set(r, opt.Profile)
			c, err := New(opt)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			s, err := c.connect(t.Context(), raceDelay)
			if s != nil || err == nil {
				if tc.name != "other pq secret" {
					t.Fatal("connected")
				}
			}
			if tc.name == "other pq secret" {
				// XK takes the secret in message 3: the relay finds it.
				if r.confirms.Load() != 0 || err == nil {
					t.Fatalf("confirmed, %v", err)
				}
				return
			}
			if !isKind(err, tc.kind) || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("got %v", err)
			}
			if r.confirms.Load() != 0 {
				t.Fatal("a Confirm went out")
			}
			if tc.kind == Downgraded {
				if _, err := c.connect(t.Context(), raceDelay); !isKind(err, Unreachable) || r.dials.Load() != 1 {
					t.Fatalf("the path was used again: %v", err)
				}
			}
		})
	}
}

// TestReplayedAuth gives a client the answer that an earlier Hello got.
func TestReplayedAuth(t *testing.T) {
	r := newRelay(t)
	var first *ccp.ServerAuth
	r.auth = func(a *ccp.ServerAuth) {
		if first == nil {
			first = &ccp.ServerAuth{Handshake: bytes.Clone(a.Handshake), PQ: bytes.Clone(a.PQ)}
			return
		}
		a.Handshake, a.PQ = first.Handshake, first.PQ
	}
	opt := r.options(0)
	for i := range 2 {
		opt.Store = memory()
		c, err := New(opt)
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.connect(t.Context(), raceDelay)
		if (err == nil) != (i == 0) || i == 1 && !isKind(err, Downgraded) {
			t.Fatalf("dial %d: %v", i, err)
		}
		if s != nil {
			s.conn.Close()
		}
		c.Close()
	}
}

func TestCapabilitiesAreRemembered(t *testing.T) {
	r := newRelay(t)
	opt := r.options(0)
	u := start(t, opt)
	u.connected()
	first := r.lastHi
	if first.Sealed() || first.PQ != nil {
		t.Fatal("sealed or pq without a promise")
	}
	u.cut()
	r.seen()
	if !r.lastHi.Sealed() || r.lastHi.PQ == nil {
		t.Fatal("what was offered is not used the next time")
	}
}

func TestResume(t *testing.T) {
	r := newRelay(t)
	r.caps = ccp.AllCapabilities
	u := start(t, r.options(ccp.AllCapabilities))
	u.connected()
	u.cut()
	if got, last := r.seen(); got != "XK IK" || last.Resume == nil {
		t.Fatalf("patterns %s", got)
	}

	// A relay that has lost the token asks for XK; the token goes with it.
	asked := false
	r.confirm = func(ccp.Confirm) *ccp.ErrorBody {
		if asked {
			return nil
		}
		asked = true
		return &ccp.ErrorBody{Error: ccp.CodeUseXK}
	}
	u.cut()
	if got, last := r.seen(); got != "XK IK IK XK" || last.Resume == nil {
		t.Fatalf("patterns %s", got)
	}
	u.until("resumed", func(u *running) bool {
		n := 0
		for _, e := range u.events {
			if e.Name == "connected" && e.Resumed {
				n++
			}
		}
		return n == 2
	})
}

// seen is the patterns of all Hellos, and the last Confirm.
func (r *relay) seen() (string, ccp.Confirm) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.patterns, " "), r.last
}

func TestUseXKForEver(t *testing.T) {
	r := newRelay(t)
	r.confirm = func(ccp.Confirm) *ccp.ErrorBody { return &ccp.ErrorBody{Error: ccp.CodeUseXK} }
	opt := r.options(ccp.AllCapabilities)
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	now := time.Now()
	c.state.Resume, c.state.ResumeUntil, c.state.ResumeKey, c.state.Confirmed = make([]byte, 32), now.Add(time.Hour), opt.Profile.Relay.Noise, now
	if _, err := c.connect(t.Context(), raceDelay); err == nil || final(err) {
		t.Fatalf("got %v", err)
	}
	if n := r.dials.Load(); n != 2 {
		t.Fatalf("%d dials", n)
	}
}

func TestPlan(t *testing.T) {
	r := newRelay(t)
	now := time.Unix(1_800_000_000, 0)
	token := make([]byte, 32)
	good := State{Resume: token, ResumeUntil: now.Add(time.Minute), ResumeKey: r.keys[0].Public, Confirmed: now.Add(-time.Hour)}
	for _, tc := range []struct {
		name   string
		change func(*Client)
		want   noise.Pattern
		token  bool
	}{
		{"good", func(*Client) {}, noise.IK, true},
		{"no token", func(c *Client) { c.state.Resume = nil }, noise.XK, false},
		{"token ended", func(c *Client) { c.state.ResumeUntil = now }, noise.XK, false},
		{"other key", func(c *Client) { c.state.ResumeKey[0] ^= 1 }, noise.XK, true},
		{"XK long ago", func(c *Client) { c.state.Confirmed = now.Add(-24 * time.Hour) }, noise.XK, true},
		{"XK in the future", func(c *Client) { c.state.Confirmed = now.Add(time.Hour) }, noise.XK, true},
		{"never XK", func(c *Client) { c.state.Confirmed = time.Time{} }, noise.XK, true},
		{"asked for XK", func(c *Client) { c.useXK = true }, noise.XK, true},
		{"resume not promised", func(c *Client) { c.profile.Relay.Promised &^= uint64(ccp.Resume) }, noise.XK, true},
	} {
		opt := r.options(ccp.AllCapabilities)
		opt.Now = func() time.Time { return now }
		c, err := New(opt)
		if err != nil {
			t.Fatal(err)
		}
		c.state = good
		tc.change(c)
		if p, tok := c.plan(); p != tc.want || (tok != nil) != tc.token {
			t.Errorf("%s: %v, token %v", tc.name, p, tok != nil)
		}
		c.Close()
	}
}

func TestRefusedForGood(t *testing.T) {
	for _, code := range []string{ccp.CodeRevoked, ccp.CodeInviteInvalid, ccp.CodeHandleTaken, ccp.CodePairingInvalid, ccp.CodeKeyMismatch, ccp.CodeUnknownDevice} {
		r := newRelay(t)
		r.confirm = func(ccp.Confirm) *ccp.ErrorBody { return &ccp.ErrorBody{Error: code} }
		u := start(t, r.options(0))
		err := <-u.ended
		if got, ok := IsRefused(err); !ok || got != code || !strings.Contains(err.Error(), refusal(code)) {
			t.Errorf("%s: %v", code, err)
		}
		if _, err := u.Connected(t.Context()); err == nil {
			t.Error("Connected does not tell")
		}
		if err := u.Join(t.Context(), 4, "x"); err == nil {
			t.Error("a request does not tell")
		}
		if e := u.event("refused"); e.Err == nil {
			t.Error("no event")
		}
	}
}

func TestJoiningSecrets(t *testing.T) {
	r := newRelay(t)
	for kind, handle := range map[link.Kind]string{link.Invite: "ada", link.Pairing: ""} {
		l := r.link(kind, ccp.AllCapabilities)
		p, err := NewProfile(l, handle, nil)
		if err != nil {
			t.Fatal(err)
		}
		p.Name = "desk"
		if err := p.Save(t.TempDir()); err != nil {
			t.Fatal(err)
		}
		r.ack = func(a *ccp.Established) { a.User = &ccp.User{ID: "u-9", Handle: "ada"} }
		u := start(t, Options{Profile: p, Store: memory(), Dialers: []transport.Dialer{r}})
		u.connected()
		if invite := kind == link.Invite; (r.last.Invite != nil) != invite || (r.last.Pair != nil) == invite || (r.last.Identity.User != nil) != invite {
			t.Errorf("%v: confirm %+v", kind, r.last)
		}
		u.close()
		saved, err := LoadProfile(p.Dir())
		if err != nil || saved.Invite != nil || saved.Pairing != nil || saved.UserID != "u-9" || saved.Handle != "ada" {
			t.Errorf("%v: saved %v, %v", kind, saved, err)
		}
	}
}

func TestCatalogue(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	sign := func(key ed25519.PrivateKey, change func(*link.Catalogue)) []byte {
		c := link.Catalogue{
			Domain: "relay.example", Serial: 7, Issued: now.Add(-time.Hour), Expires: now.Add(time.Hour),
			Noise: []link.NoiseKey{{Version: 3, Public: [32]byte{3}, NotAfter: now.Add(time.Hour)}, {Version: 2, Public: [32]byte{2}, NotAfter: now.Add(time.Hour)}},
			CA:    [][32]byte{{1}}, Features: []string{"proof-binding", "records", "ack"}, Min: []string{"ack"},
		}
		if change != nil {
			change(&c)
		}
		s, err := link.SignCatalogue(c, key)
		if err != nil {
			t.Fatal(err)
		}
		return s.AppendJSON(nil)
	}
	key := func(b byte) ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, 32)) }
	pub := func(b byte) Hex32 { return Hex32(key(b).Public().(ed25519.PublicKey)) }
	next := func(b byte) func(*link.Catalogue) {
		return func(c *link.Catalogue) { n := [32]byte(pub(b)); c.RootNext, c.Serial = &n, c.Serial+uint64(b) }
	}
	r := Relay{Domain: "relay.example", Root: pub(1), Noise: Hex32{9}, NoiseVersion: 1, Promised: uint64(ccp.AllCapabilities), Serial: 6}
	for _, bad := range [][]byte{
		sign(key(2), nil),
		sign(key(1), func(c *link.Catalogue) { c.Serial = 5 }),
		sign(key(1), func(c *link.Catalogue) { c.Domain = "other.example" }),
		sign(key(1), func(c *link.Catalogue) { c.Issued, c.Expires = now.Add(-2*time.Hour), now }),
		[]byte(`{"signed":"","signature":""}`),
	} {
		if err := r.takeCatalogue(bad, now); err == nil || r.Noise != (Hex32{9}) || r.Serial != 6 || r.Promised != uint64(ccp.AllCapabilities) {
			t.Errorf("a bad catalogue was taken over: %v", err)
		}
	}
	if err := r.takeCatalogue(sign(key(1), nil), now); err != nil {
		t.Fatal(err)
	}
	if r.Noise != (Hex32{3}) || r.NoiseVersion != 3 || r.Serial != 7 || r.promised() != needed || len(r.Min) != 1 {
		t.Fatalf("taken over: %+v", r)
	}
	if r.satisfied(ccp.ProofBinding) == nil || r.satisfied(needed) != nil {
		t.Error("min is not kept")
	}
	// The same bytes again are not verified again, but they do expire, and others
	// are judged as ever.
	if err := r.takeCatalogue(sign(key(1), nil), now); err != nil {
		t.Errorf("the same catalogue again: %v", err)
	}
	if err := r.takeCatalogue(sign(key(1), nil), now.Add(time.Hour)); link.KindOf(err) != link.Expired {
		t.Errorf("the same catalogue after its end: %v", err)
	}
	if err := r.takeCatalogue(sign(key(2), nil), now); link.KindOf(err) != link.BadSignature {
		t.Errorf("the same content under another key: %v", err)
	}
	// Root 1 names 2; 2 signs and names 3, and becomes the root.
	for i, signer := range []byte{1, 2, 3} {
		if err := r.takeCatalogue(sign(key(signer), next(byte(i+2))), now); err != nil {
			t.Fatalf("rotation %d: %v", i, err)
		}
	}
	if r.Root != pub(3) || r.RootNext != pub(4) {
		t.Error("roots do not follow")
	}
}

// TestCatalogueWarning: a session goes on with the old catalogue and says so.
func TestCatalogueWarning(t *testing.T) {
	r := newRelay(t)
	_, other, _ := ed25519.GenerateKey(nil)
	now := time.Now()
	s, err := link.SignCatalogue(link.Catalogue{
		Domain: r.domain, Serial: 9, Issued: now, Expires: now.Add(time.Hour), CA: [][32]byte{{1}},
		Noise: []link.NoiseKey{{Version: 8, Public: [32]byte{8}, NotAfter: now.Add(time.Hour)}},
	}, other)
	if err != nil {
		t.Fatal(err)
	}
	r.ack = func(a *ccp.Established) { a.Ext.Catalogue = s.AppendJSON(nil) }
	u := start(t, r.options(0))
	u.connected()
	if e := u.event("catalogue"); e.Err == nil || u.Profile().Relay.NoiseVersion != 1 {
		t.Fatalf("event %+v", e)
	}
}

func TestProfilePermission(t *testing.T) {
	r := newRelay(t)
	p, dir := r.profile(0), t.TempDir()
	if err := p.Save(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadProfile(dir); err != nil {
		t.Fatal(err)
	}
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(dir); !isKind(err, InUse) {
		t.Errorf("a second opener got %v", err)
	}
	s.Close()
	chmod(t, dir, 0o644)
	if _, err := LoadProfile(dir); !isKind(err, Invalid) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("got %v", err)
	}
	if _, err := OpenStore(dir); !isKind(err, Invalid) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("got %v", err)
	}
	if _, err := LoadProfile(t.TempDir()); !isKind(err, Invalid) || !strings.Contains(err.Error(), "client register") {
		t.Errorf("got %v", err)
	}
	if text := p.String() + p.GoString(); strings.Contains(text, "key") {
		t.Error(text)
	}
}

// TestMalformedBeforeAck feeds nonsense where the handshake expects sense.
func TestMalformedBeforeAck(t *testing.T) {
	for name, answer := range map[string][]byte{
		"nothing":     nil,
		"http":        []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
		"endless":     append([]byte{0xff, 0xff, 0xff, 0x07}, make([]byte, maxHandshake)...),
		"other frame": {4, 0x05, 0, 0, 0},
		"empty auth":  {6, 0x02, 0, 0, 2, '{', '}'},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t)
			opt := r.options(0)
			opt.Dialers = []transport.Dialer{&fixed{name: "pipe", dial: func() net.Conn {
				a, b := net.Pipe()
				r.wg.Go(func() {
					defer b.Close()
					if _, _, err := readFrame(b, nil); err == nil {
						_, _ = b.Write(answer)
					}
				})
				return a
			}}}
			c, err := New(opt)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.connect(t.Context(), raceDelay); !isKind(err, Broken) {
				t.Fatalf("got %v", err)
			}
		})
	}
}
