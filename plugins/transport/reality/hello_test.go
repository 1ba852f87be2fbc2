package reality

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

func testParams(t testing.TB) (params, Draft) {
	d := newDraft(t)
	public, err := parsePublic(d.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	id, err := parseShortID(d.ShortIDs[0])
	if err != nil {
		t.Fatal(err)
	}
	return params{public: public, id: id, name: siteName, version: currentVersion}, d
}

// TestSealOpen: what a client seals into each browser's hello the server's key opens,
// and nothing else does.
func TestSealOpen(t *testing.T) {
	p, d := testParams(t)
	private, err := parsePrivate(string(d.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{settings: &settings{}}
	s.keys = append(s.keys, serverKey{PrivateKey: private})
	for _, prof := range profiles() {
		now := time.Now()
		b := shape{params: p, profile: prof.name, now: now}.record(t)
		if inspect(b) != recordHello {
			t.Fatalf("%s: not seen as a hello", prof.name)
		}
		h, ok := parseClientHello(b[recordHeader:])
		if !ok || h.serverName != siteName || !h.tls13 || h.protocol != offersHTTP2 {
			t.Fatalf("%s: %+v", prof.name, h)
		}
		got, _ := s.open(h)
		if got == nil {
			t.Fatalf("%s: not opened", prof.name)
		}
		if want := (claim{version: currentVersion, time: time.Unix(now.Unix(), 0), id: p.id}); got.claim != want {
			t.Errorf("%s: %+v, want %+v", prof.name, got.claim, want)
		}
		for i := range b[recordHeader:] {
			bad := bytes.Clone(b)
			bad[recordHeader+i] ^= 0x80
			if h, ok := parseClientHello(bad[recordHeader:]); ok && h.share() != nil {
				if p, _ := s.open(h); p != nil {
					t.Errorf("%s: opened with byte %d changed", prof.name, i)
				}
			}
		}
	}
}

func TestInspect(t *testing.T) {
	p, _ := testParams(t)
	b := shape{params: p, profile: "chrome", now: time.Now()}.record(t)
	for n := range len(b) {
		if got := inspect(b[:n]); got != recordPart {
			t.Fatalf("%d bytes: %d", n, got)
		}
	}
	if inspect(append(bytes.Clone(b), 1)) != recordAlien {
		t.Error("a byte behind the hello")
	}
}

// TestShares: a second share of a group, or one of another size, is no hello of ours: the
// module takes the first of a group without a look at its size.
func TestShares(t *testing.T) {
	entry := func(group uint16, size int) []byte {
		b := binary.BigEndian.AppendUint16(nil, group)
		return append(binary.BigEndian.AppendUint16(b, uint16(size)), make([]byte, size)...)
	}
	for name, tc := range map[string]struct {
		entries [][]byte
		ok      bool
	}{
		"both groups":            {[][]byte{entry(0x0a0a, 1), entry(groupHybrid, hybridHelloSize), entry(groupX25519, x25519Size)}, true},
		"two of X25519":          {[][]byte{entry(groupX25519, x25519Size), entry(groupX25519, x25519Size)}, false},
		"none before X25519":     {[][]byte{entry(groupX25519, 0), entry(groupX25519, x25519Size)}, false},
		"short before a hybrid":  {[][]byte{entry(groupHybrid, 10), entry(groupHybrid, hybridHelloSize)}, false},
		"another group is short": {[][]byte{entry(23, 3), entry(groupX25519, x25519Size)}, true},
	} {
		list := bytes.Join(tc.entries, nil)
		body := append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...)
		if ok := new(clientHello).extension(extensionKeyShare, reader{b: body}); ok != tc.ok {
			t.Errorf("%s: %v", name, ok)
		}
	}
}

func FuzzClientHello(f *testing.F) {
	p, _ := testParams(f)
	for _, prof := range profiles() {
		f.Add(shape{params: p, profile: prof.name, now: time.Now()}.record(f))
	}
	s := &server{settings: &settings{}}
	d := newDraft(f)
	private, err := parsePrivate(string(d.PrivateKey))
	if err != nil {
		f.Fatal(err)
	}
	s.keys = append(s.keys, serverKey{PrivateKey: private})
	f.Fuzz(func(t *testing.T, b []byte) {
		if inspect(b) != recordHello {
			return
		}
		if lengths, rest := recordLengths(b); len(lengths) != 1 || rest != len(b) {
			t.Fatalf("%v %d of %d", lengths, rest, len(b))
		}
		h, ok := parseClientHello(b[recordHeader:])
		if !ok {
			return
		}
		if h.share() == nil {
			return
		}
		if p, _ := s.open(h); p != nil {
			t.Error("opened without the key")
		}
	})
}

func FuzzServerHello(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0})
	f.Add(append([]byte{2, 0, 0, 72, 3, 3}, make([]byte, 70)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseServerHello(b)
		if ok && h.fits(&clientHello{}) {
			t.Error("fits a hello without shares")
		}
	})
}

func FuzzParams(f *testing.F) {
	p, d := testParams(f)
	f.Add(d.PublicKey, d.ShortIDs[0], p.name, "chrome", "26.7.28")
	f.Add("", "0", "x", "rotate", "1.2.3")
	f.Fuzz(func(t *testing.T, key, id, name, fp, v string) {
		e := transport.Endpoint{Host: "h.example", Port: 1, Params: map[string]string{
			ParamPublicKey: key, ParamShortID: id, transport.ParamName: name, ParamFingerprint: fp, ParamVersion: v,
		}}
		got, err := parseParams(e, "")
		if err != nil {
			return
		}
		again, err := parseParams(got.endpoint(e.Host, e.Port), "")
		if err != nil || !again.public.Equal(got.public) || again.id != got.id || again.name != got.name || again.version != got.version || again.fingerprint != got.fingerprint {
			t.Errorf("%+v became %+v, %v", got, again, err)
		}
	})
}

func TestKeys(t *testing.T) {
	d := newDraft(t)
	if len(d.ShortIDs) < 2 || d.ShortIDs[0] == d.ShortIDs[1] {
		t.Errorf("short ids %v", d.ShortIDs)
	}
	table := d.Table("file:keys/reality.key", "self", []string{siteName})
	next, err := Rotate(table, "file:keys/reality-2.key")
	if err != nil {
		t.Fatal(err)
	}
	if next["private_key"] != "file:keys/reality-2.key" || table["private_key"] != "file:keys/reality.key" {
		t.Errorf("rotated %v from %v", next, table)
	}
	next, err = Rotate(next, "file:keys/reality-3.key")
	old := next["old_private_keys"].([]any)
	if err != nil || len(old) != 2 || old[0] != "file:keys/reality-2.key" || old[1] != "file:keys/reality.key" {
		t.Errorf("rotated twice: %v, %v", next, err)
	}
	if _, err := Rotate(next, "file:keys/reality-3.key"); err == nil {
		t.Error("rotated onto itself")
	}
	if _, err := Draw(strings.NewReader("too little")); err == nil {
		t.Error("drawn from a short source")
	}
	if a, b := newDraft(t), newDraft(t); bytes.Equal(a.PrivateKey, b.PrivateKey) {
		t.Error("drawn twice the same")
	}
}

// certificateFor is self-signed.
func certificateFor(t *testing.T, names ...string) (sdk.File, sdk.Secret) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return sdk.NewFile("chain.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		sdk.NewSecret(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
}

// TestDrawn: who names no key has one that lasts, and the names of the cover.
func TestDrawn(t *testing.T) {
	dir := t.TempDir()
	keep := func() ([]lot, error) { return kept(dir, transport.Rotation{}, time.Now()) }
	a, err := newSettings(Config{Cover: siteName + ":443"}, keep)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newSettings(Config{Cover: siteName + ":443"}, keep)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.keys) != 1 || !a.keys[0].Equal(b.keys[0].PrivateKey) || a.first != b.first || len(a.keys[0].ids) != drawnIDs || !a.names[siteName] {
		t.Errorf("%v and %v, ids %v", a.names, b.names, a.keys[0].ids)
	}
	if info, err := os.Stat(filepath.Join(dir, drawnName+".json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	own := Config{Cover: coverSelf, Certificate: sdk.NewFile("chain.pem", testAuthority().chain), Key: sdk.NewSecret(testAuthority().key)}
	if c, err := newSettings(own, keep); err != nil || !c.names[siteName] || len(c.names) != 2 {
		t.Errorf("%v", err)
	}
	for name, c := range map[string]Config{"an address has no name": {Cover: "127.0.0.1:443"}, "no certificate": {Cover: coverSelf}} {
		if _, err := newSettings(c, keep); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	local := own
	local.Certificate, local.Key = certificateFor(t, "localhost", "*.example.test")
	for text, c := range map[string]Config{`is for ["localhost" "*.example.test"],`: local, `host is "127.0.0.1",`: {Cover: "127.0.0.1:443"}} {
		if _, err := newSettings(c, keep); err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "with a dot") {
			t.Errorf("%v, want %s", err, text)
		}
	}
	if _, err := kept("", transport.Rotation{}, time.Now()); err == nil {
		t.Error("kept nowhere")
	}
	if err := os.WriteFile(filepath.Join(dir, drawnName+".json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keep(); sdk.KindOf(err) != sdk.Corrupt {
		t.Errorf("%v", err)
	}
}

// TestRotateChoice: one device keeps its browser for a week, and does not keep it for
// ever.
func TestRotateChoice(t *testing.T) {
	seen := map[string]int{}
	for range 300 {
		p, _ := testParams(t)
		now := time.Unix(1_800_000_000, 0)
		a, err := chooseProfile(rotate, p, now)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := chooseProfile(rotate, p, now.Add(time.Minute))
		changed := a.name != b.name
		for week := range 60 {
			c, _ := chooseProfile(rotate, p, now.Add(time.Duration(week)*rotation))
			changed = changed || c.name != a.name
		}
		if !changed {
			t.Error("never another browser in 60 weeks")
		}
		seen[a.name]++
	}
	if seen["chrome"] < 150 || seen["firefox"] < 30 || len(seen) != 2 {
		t.Errorf("choices %v", seen)
	}
	if _, err := chooseProfile("netscape", params{}, time.Now()); err == nil {
		t.Error("an unknown fingerprint was taken")
	}
}

// TestFormerKey: what was sealed for a former key is opened until that one's end, by the
// server's clock, and with its own ids alone.
func TestFormerKey(t *testing.T) {
	p, d := testParams(t)
	private, err := parsePrivate(string(d.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	until := now.Add(time.Minute)
	s := &server{settings: &settings{Config: Config{Window: time.Minute}}, now: func() time.Time { return now }, log: testLog(t)}
	s.names = map[string]bool{siteName: true}
	s.guests, err = openGuests("", s.now)
	if err != nil {
		t.Fatal(err)
	}
	if s.seen, _, err = openSeen("", time.Minute, 100, s.now); err != nil {
		t.Fatal(err)
	}
	s.health.tell = func(error) {}
	s.ready.Store(true)
	s.records.instance = "TestFormerKey"
	s.records.set(siteName, offersHTTP2, []int{100}, false)
	defer s.records.forget()
	for _, tc := range []struct {
		name string
		ids  map[shortID]bool
		at   time.Time
		in   bool
	}{
		{"in time", map[shortID]bool{p.id: true}, until.Add(-time.Second), true},
		{"other ids", map[shortID]bool{{}: true}, until.Add(-time.Second), false},
		{"at its end", map[shortID]bool{p.id: true}, until, false},
	} {
		now = tc.at
		s.keys = []serverKey{{PrivateKey: private, ids: tc.ids, until: until}}
		b := shape{params: p, profile: "chrome", now: now}.record(t)
		if in := s.admit(b) != nil; in != tc.in {
			t.Errorf("%s: let in %v", tc.name, in)
		}
	}
	if s.figures.former.Load() != 1 || s.figures.ended.Load() != 1 || s.figures.revoked.Load() != 1 {
		t.Errorf("counted %v", s.figures.attrs())
	}
}
