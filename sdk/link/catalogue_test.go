package link

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/sdk/ccp"
)

func exampleCatalogue(t testing.TB) Catalogue {
	t.Helper()
	issued := time.Unix(1799990000, 0).UTC()
	return Catalogue{
		Domain: "relay.example", Serial: 7, Issued: issued, Expires: issued.Add(60 * 24 * time.Hour),
		Noise: []NoiseKey{{
			Version: 3, Public: hex32(t, "7b0d47d93427f8311160781c7c733fd89f88970aef490d8aa0ee19a4cb8a1b14"), NotAfter: issued.Add(60 * 24 * time.Hour),
		}},
		CA:       [][32]byte{{0xca}},
		Features: ccp.AllCapabilities.Names(),
		Min:      []string{"proof-binding", "records"},
	}
}

func public() ed25519.PublicKey { return exampleRoot().Public().(ed25519.PublicKey) }

func signContent(b []byte) Signed {
	return Signed{Content: b, Signature: [64]byte(ed25519.Sign(exampleRoot(), signed(catalogueLabel, b)))}
}

// The example of section 8 gives the length of the JSON; its times and CA key are
// not given there.
func TestExampleCatalogue(t *testing.T) {
	want := exampleCatalogue(t)
	s, err := SignCatalogue(want, exampleRoot())
	if err != nil || len(s.Content) != 383 {
		t.Fatalf("%d bytes, %v", len(s.Content), err)
	}
	golden(t, "catalogue.golden", string(s.AppendJSON(nil)))
	other := make(ed25519.PublicKey, ed25519.PublicKeySize)
	got, err := OpenCatalogue(s, other, public())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got.Newest().Version != 3 || got.Promises() != ccp.AllCapabilities {
		t.Error("Newest or Promises")
	}
}

func TestCatalogueWire(t *testing.T) {
	c := exampleCatalogue(t)
	c.RootNext = &[32]byte{5}
	c.Noise = append(c.Noise, NoiseKey{Version: 9, NotAfter: c.Expires}, NoiseKey{Version: 1, NotAfter: c.Issued})
	c.CA = append(c.CA, [32]byte{2})
	s, err := SignCatalogue(c, exampleRoot())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if sorted, err := ccp.CanonicalJSON(b); err != nil || !bytes.Equal(sorted, b) {
		t.Errorf("%s is not sorted, %v", b, err)
	}
	var again Signed
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	got, err := OpenCatalogue(again, public())
	if diff := cmp.Diff(c, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if got.Newest().Version != 9 {
		t.Error(got.Newest().Version)
	}
	// The order of keys and unknown keys do not matter: the bytes are signed.
	sorted, err := ccp.CanonicalJSON(append(s.Content[:len(s.Content)-1:len(s.Content)-1], `,"later":{}}`...))
	if err != nil {
		t.Fatal(err)
	}
	got, err = OpenCatalogue(signContent(sorted), public())
	if diff := cmp.Diff(c, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestCatalogueSignature(t *testing.T) {
	s, err := SignCatalogue(exampleCatalogue(t), exampleRoot())
	if err != nil {
		t.Fatal(err)
	}
	changed := Signed{Content: bytes.Replace(s.Content, []byte(`"serial":7`), []byte(`"serial":8`), 1), Signature: s.Signature}
	label := s
	label.Signature = [64]byte(ed25519.Sign(exampleRoot(), signed(signatureLabel, s.Content)))
	for name, bad := range map[string]Signed{"content": changed, "label of links": label, "no signature": {Content: s.Content}} {
		if _, err := OpenCatalogue(bad, public()); KindOf(err) != BadSignature {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, roots := range map[string][]ed25519.PublicKey{"none": nil, "short": {public()[:31]}, "another": {make([]byte, 32)}} {
		if _, err := OpenCatalogue(s, roots...); KindOf(err) != BadSignature {
			t.Errorf("roots %s: %v", name, err)
		}
	}
}

func TestCatalogueCheck(t *testing.T) {
	c := exampleCatalogue(t)
	now := c.Issued.Add(time.Hour)
	if err := c.Check("relay.example", now, 7); err != nil {
		t.Error(err)
	}
	for name, test := range map[string]struct {
		err  error
		want ErrorKind
	}{
		"domain": {c.Check("other.example", now, 7), WrongDomain},
		"case":   {c.Check("Relay.example", now, 7), WrongDomain},
		"time":   {c.Check("relay.example", c.Expires, 7), Expired},
		"serial": {c.Check("relay.example", now, 8), Stale},
	} {
		if KindOf(test.err) != test.want {
			t.Errorf("%s: %v", name, test.err)
		}
	}
	if err := c.Satisfied(ccp.ProofBinding | ccp.Records); err != nil {
		t.Error(err)
	}
	if err := c.Satisfied(ccp.ProofBinding); KindOf(err) != Unsupported {
		t.Error(err)
	}
	c.Min = append(c.Min, "teleport")
	if err := c.Satisfied(ccp.AllCapabilities); KindOf(err) != Unsupported {
		t.Error(err)
	}
}

func TestSignCatalogueRefuses(t *testing.T) {
	for name, change := range map[string]func(*Catalogue){
		"no domain":         func(c *Catalogue) { c.Domain = "" },
		"serial 0":          func(c *Catalogue) { c.Serial = 0 },
		"91 days":           func(c *Catalogue) { c.Expires = c.Issued.Add(91 * 24 * time.Hour) },
		"expires at once":   func(c *Catalogue) { c.Expires = c.Issued },
		"no key":            func(c *Catalogue) { c.Noise = nil },
		"four keys":         func(c *Catalogue) { c.Noise = make([]NoiseKey, 4) },
		"same version":      func(c *Catalogue) { c.Noise = append(c.Noise, c.Noise[0]) },
		"no CA":             func(c *Catalogue) { c.CA = nil },
		"many CAs":          func(c *Catalogue) { c.CA = make([][32]byte, 17) },
		"many capabilities": func(c *Catalogue) { c.Min = make([]string, 33) },
	} {
		c := exampleCatalogue(t)
		change(&c)
		if _, err := SignCatalogue(c, exampleRoot()); KindOf(err) != Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := SignCatalogue(exampleCatalogue(t), nil); KindOf(err) != BadSignature {
		t.Error(err)
	}
}

func TestOpenCatalogueMalformed(t *testing.T) {
	good := string(exampleCatalogue(t).marshal())
	swap := func(old, text string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s is not in %s", old, good)
		}
		return strings.Replace(good, old, text, 1)
	}
	for _, c := range []struct {
		name, in string
		want     ErrorKind
	}{
		{"empty", "", Malformed},
		{"no JSON", good[1:], Malformed},
		{"array", "[]", Malformed},
		{"no version", swap(`"v":1,`, ``), Malformed},
		{"newer version", swap(`"v":1`, `"v":2`), NewerVersion},
		{"domain is no text", swap(`"relay.example"`, `7`), Malformed},
		{"serial is no integer", swap(`"serial":7`, `"serial":7.0`), Malformed},
		{"time is a text", swap(`"issued":1799990000`, `"issued":"1799990000"`), Malformed},
		{"time is huge", swap(`"expires":1805174000`, `"expires":18446744073709551615`), Malformed},
		{"noise is no array", swap(`"noise":[`, `"x":[`), Malformed},
		{"version over 32 bits", swap(`"version":3`, `"version":4294967296`), Malformed},
		{"short key", swap(`"7b0d`, `"`), Malformed},
		{"short CA", swap(`"ca00`, `"`), Malformed},
		{"no features", swap(`"features"`, `"f"`), Malformed},
		{"feature is a number", swap(`["proof-binding"`, `[7`), Malformed},
		{"long feature", swap(`["proof-binding"`, `["`+strings.Repeat("a", 33)+`"`), Malformed},
		{"next root is null", swap(`"v":1`, `"v":1,"root_next":null`), Malformed},
		{"too long", swap(`"v":1`, `"v":1,"x":"`+strings.Repeat("x", MaxCatalogue)+`"`), Malformed},
	} {
		if _, err := OpenCatalogue(signContent([]byte(c.in)), public()); KindOf(err) != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	sig := strings.Repeat("00", 64)
	for _, in := range []string{
		``, `{}`, `[]`, `{"signed":"AA"}`, `{"signed":"AA","signature":"00"}`, `{"signed":"A","signature":"` + sig + `"}`, `{"signed":"AA==","signature":"` + sig + `"}`,
		`{"signed":"AB","signature":"` + sig + `"}`, `{"signed":"A\nA","signature":"` + sig + `"}`, `{"signed":7,"signature":"` + sig + `"}`,
		`{"signed":"` + base64.RawURLEncoding.EncodeToString(make([]byte, MaxCatalogue+1)) + `","signature":"` + sig + `"}`,
	} {
		if _, err := ParseSigned([]byte(in)); KindOf(err) != Malformed {
			t.Errorf("ParseSigned(%.50s): %v", in, err)
		}
	}
}

func TestErrorText(t *testing.T) {
	if got := badCatalogue(Stale, "serial").Error(); got != "catalogue: older than one seen before: serial" {
		t.Error(got)
	}
	for kind := Malformed; kind <= Unsupported; kind++ {
		if s := kind.String(); s == "" || s == "unknown error" {
			t.Errorf("kind %d has no text", kind)
		}
	}
}

func FuzzCatalogue(f *testing.F) {
	c := exampleCatalogue(f)
	f.Add(c.marshal())
	c.RootNext = &[32]byte{1}
	f.Add(c.marshal())
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := OpenCatalogue(signContent(b), public())
		if err != nil {
			if KindOf(err) == 0 {
				t.Fatal(err)
			}
			return
		}
		s, err := SignCatalogue(c, exampleRoot())
		if err != nil {
			t.Fatal(err)
		}
		again, err := OpenCatalogue(s, public())
		if diff := cmp.Diff(c, again); diff != "" || err != nil {
			t.Fatal(err, diff)
		}
	})
}

func FuzzSigned(f *testing.F) {
	s, err := SignCatalogue(exampleCatalogue(f), exampleRoot())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.AppendJSON(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSigned(b)
		if err != nil {
			return
		}
		again, err := ParseSigned(s.AppendJSON(nil))
		if err != nil || !bytes.Equal(s.Content, again.Content) || s.Signature != again.Signature {
			t.Fatal(err)
		}
	})
}
