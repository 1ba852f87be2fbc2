package link

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/commucat/commucat/sdk/ccp"
)

// The constants of protocol-extensions.md: root seed 32×42, Noise static of the
// private key 32×33, the entry credential of section 7.
func exampleRoot() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{0x42}, ed25519.SeedSize))
}

func hex32(t testing.TB, s string) (b [32]byte) {
	t.Helper()
	if n, err := hex.Decode(b[:], []byte(s)); n != 32 || err != nil {
		t.Fatal(n, err)
	}
	return b
}

func exampleLink(t testing.TB) Link {
	t.Helper()
	return Link{
		Kind:         Invite,
		NoiseVersion: 3,
		NoisePublic:  hex32(t, "7b0d47d93427f8311160781c7c733fd89f88970aef490d8aa0ee19a4cb8a1b14"),
		Domain:       "relay.example",
		Entry: &Entry{
			ID:  [8]byte{0x6b, 0x49, 0xd2, 0x00, 0xde, 0xad, 0xbe, 0xef},
			Key: [16]byte{0x39, 0xac, 0x2d, 0x10, 0x8a, 0x53, 0x59, 0xca, 0xdc, 0x7a, 0x59, 0x52, 0x90, 0x37, 0xac, 0x82},
		},
		Secret:       [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		Expires:      time.Unix(1800000000, 0).UTC(),
		Endpoints:    []Endpoint{{Transport: "http2", Host: "relay.example", Port: 443, Params: "path=/assets/9f3c61d2"}},
		Capabilities: uint64(ccp.AllCapabilities),
	}
}

func sign(t testing.TB, l Link) string {
	t.Helper()
	s, err := l.Sign(exampleRoot())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The example of section 9 names the lengths, with and without one pin, and the
// beginning; the secret and the signature are not given there.
func TestExampleLink(t *testing.T) {
	l := exampleLink(t)
	s := sign(t, l)
	const text, start = "commucat://aeaqcibbkl4ndg3z", "010101202152f8d19b79"
	got, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Raw) != 251 || len(s) != 413 || !strings.HasPrefix(s, text) || !strings.HasPrefix(hex.EncodeToString(got.Raw), start) {
		t.Errorf("%d bytes, %d characters: %s", len(got.Raw), len(s), s)
	}
	l.Root = [32]byte(exampleRoot().Public().(ed25519.PublicKey))
	if diff := cmp.Diff(l, got, cmpopts.IgnoreFields(Link{}, "Raw")); diff != "" {
		t.Error(diff)
	}
	golden(t, "invite.golden", s)
	l.Pins = [][32]byte{{1}}
	pinned := sign(t, l)
	if got, err := Parse(pinned); err != nil || len(got.Raw) != 285 || len(pinned) != 467 {
		t.Errorf("with a pin: %d bytes, %d characters, %v", len(got.Raw), len(pinned), err)
	}
}

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile("testdata/"+name, []byte(got+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if got != strings.TrimSpace(string(want)) {
		t.Errorf("%s: got %s", name, got)
	}
}

func TestForms(t *testing.T) {
	s := sign(t, exampleLink(t))
	l, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	web, err := l.Web("relay.example:8443")
	if err != nil || web != "https://relay.example:8443/#"+strings.TrimPrefix(s, Scheme) {
		t.Errorf("Web = %s, %v", web, err)
	}
	mixed := s[:40] + strings.ToUpper(s[40:])
	for name, text := range map[string]string{
		"lower": s, "upper": QR(s), "mixed": mixed, "web": web, "web upper": QR(web), "web without slash": strings.Replace(web, "/#", "#", 1), "String": l.String(),
	} {
		got, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(l, got); diff != "" {
			t.Error(name, diff)
		}
	}
	for _, host := range []string{"", "a/b", "a#b", "a?b", "u@a", "a b"} {
		if got, err := l.Web(host); KindOf(err) != Malformed {
			t.Errorf("Web(%q) = %s, %v", host, got, err)
		}
	}
	if _, err := exampleLink(t).Web("h"); KindOf(err) != Malformed || exampleLink(t).String() != "" {
		t.Error("a link that was not parsed has no text")
	}
}

func TestKinds(t *testing.T) {
	pairing := exampleLink(t)
	pairing.Kind = Pairing
	address := exampleLink(t)
	address.Kind, address.Entry, address.Secret, address.Expires, address.Capabilities = Address, nil, [16]byte{}, time.Time{}, 0
	address.Endpoints = append(address.Endpoints, Endpoint{Transport: "onion", Host: strings.Repeat("a", 56) + ".onion", Port: 80})
	for _, l := range []Link{pairing, address} {
		got, err := Parse(sign(t, l))
		if err != nil || got.Kind != l.Kind {
			t.Errorf("%v: %v", l.Kind, err)
		}
		l.Root = got.Root
		if diff := cmp.Diff(l, got, cmpopts.IgnoreFields(Link{}, "Raw")); diff != "" {
			t.Error(diff)
		}
	}
	if got := pairing.Promises(); got != ccp.AllCapabilities {
		t.Error(got.Names())
	}
	at := pairing.Expires
	if pairing.Expired(at.Add(-time.Second)) || !pairing.Expired(at) || address.Expired(at) {
		t.Error("Expired")
	}
	if s := fmt.Sprint(Invite, Pairing, Address, Kind(9)); s != "invite pairing address unknown" {
		t.Error(s)
	}
}

// seal signs any bytes, so that only their content can be at fault.
func seal(body []byte) string {
	return Scheme + encode(append(bytes.Clone(body), ed25519.Sign(exampleRoot(), signed(signatureLabel, body))...))
}

func TestParseMalformed(t *testing.T) {
	l := exampleLink(t)
	l.Root = [32]byte(exampleRoot().Public().(ed25519.PublicKey))
	body := l.body()
	address := l
	address.Kind, address.Entry, address.Secret, address.Expires = Address, nil, [16]byte{}, time.Time{}
	at := func(tag byte) int {
		i := headBytes
		for body[i] != tag {
			i += 2 + int(body[i+1])
		}
		return i
	}
	without := func(tag byte) []byte {
		i := at(tag)
		return append(bytes.Clone(body[:i]), body[i+2+int(body[i+1]):]...)
	}
	with := func(extra ...byte) []byte { return append(bytes.Clone(body), extra...) }
	changed := func(i int, to ...byte) []byte {
		b := bytes.Clone(body)
		copy(b[i:], to)
		return b
	}
	good := seal(body)
	tampered := []byte(strings.TrimPrefix(good, Scheme))
	tampered[60] ^= 'a' ^ 'b' // in the Noise key
	for _, c := range []struct {
		name, in string
		want     ErrorKind
	}{
		{"empty", "", Malformed},
		{"scheme alone", Scheme, Malformed},
		{"other scheme", "http" + good[8:], Malformed},
		{"other web scheme", "http://h/#" + good[len(Scheme):], Malformed},
		{"no fragment", "https://h/" + good[len(Scheme):], Malformed},
		{"no host", "https:///#" + good[len(Scheme):], Malformed},
		{"path", "https://h/p#" + good[len(Scheme):], Malformed},
		{"query", "https://h/?q#" + good[len(Scheme):], Malformed},
		{"user", "https://u@h/#" + good[len(Scheme):], Malformed},
		{"padding", good + "======", Malformed},
		{"line break", good[:60] + "\n" + good[60:], Malformed},
		{"space", good + " ", Malformed},
		{"digit outside of the alphabet", good[:60] + "1" + good[61:], Malformed},
		{"surplus bits", good[:len(good)-1] + "b", Malformed},
		{"a character less", good[:len(good)-1], Malformed},
		{"too long", Scheme + strings.Repeat("a", maxText+8), Malformed},
		{"cut off", Scheme + encode(body[:40]), Malformed},
		{"version 0", seal(changed(0, 0)), Malformed},
		{"version 2", seal(changed(0, 2)), NewerVersion},
		{"version 2 and short", Scheme + "ai", NewerVersion},
		{"kind 4", seal(changed(1, 4)), NewerVersion},
		{"another root", seal(changed(at(tagRoot)+2, 0xff)), BadSignature},
		{"tampered", Scheme + string(tampered), BadSignature},
		{"unknown tag below 128", seal(with(127, 0)), NewerVersion},
		{"tag 10", seal(with(10, 1, 0)), NewerVersion},
		{"tag 0", seal(append([]byte{1, 1, 0, 0}, body[2:]...)), NewerVersion},
		{"tags not ascending", seal(with(tagDomain, 1, 'x')), Malformed},
		{"tag repeated", seal(with(tagCapabilities, 1, 1)), Malformed},
		{"field cut off", seal(with(200, 5, 1)), Malformed},
		{"length cut off", seal(with(200)), Malformed},
		{"overlong length", seal(with(200, 0x80, 0)), Malformed},
		{"length overflow", seal(append(with(200), bytes.Repeat([]byte{0xff}, 10)...)), Malformed},
		{"no root", seal(without(tagRoot)), Malformed},
		{"no noise", seal(without(tagNoise)), Malformed},
		{"no domain", seal(without(tagDomain)), Malformed},
		{"no entry", seal(without(tagEntry)), Malformed},
		{"no secret", seal(without(tagSecret)), Malformed},
		{"no expiry", seal(without(tagExpires)), Malformed},
		{"no endpoint", seal(without(tagEndpoint)), Malformed},
		{"address with a secret", seal(changed(1, byte(Address))), Malformed},
		{"invite without one", seal(func() []byte { b := address.body(); b[1] = byte(Invite); return b }()), Malformed},
		{"domain that is no UTF-8", seal(changed(at(tagDomain)+2, 0xff)), Malformed},
		{"host with a slash", seal(changed(at(tagEndpoint)+2+1+5+1, '/')), Malformed},
		{"transport in upper case", seal(changed(at(tagEndpoint)+2+1, 'H')), Malformed},
		{"transport longer than the field", seal(changed(at(tagEndpoint)+2, 200)), Malformed},
		{"port 0", seal(changed(at(tagEndpoint)+2+1+5+1+13, 0, 0)), Malformed},
		{"capabilities 0", seal(changed(at(tagCapabilities)+2, 0)), Malformed},
		{"capabilities cut", seal(changed(at(tagCapabilities)+2, 0x80)), Malformed},
		{"expiry 0", seal(changed(at(tagExpires)+2, 0, 0, 0, 0)), Malformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse(c.in)
			if KindOf(err) != c.want {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if got.Raw != nil || got.Domain != "" {
				t.Error("a refused link leaks content")
			}
			if strings.Contains(err.Error(), "relay.example") {
				t.Errorf("error repeats the link: %v", err)
			}
		})
	}
	skipped, err := Parse(seal(with(128, 3, 1, 2, 3, 128, 0, 255, 1, 9)))
	if err != nil || skipped.Domain != l.Domain {
		t.Errorf("unknown tags from 128 on: %v", err)
	}
}

func TestSignRefuses(t *testing.T) {
	other := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	for _, c := range []struct {
		name   string
		change func(*Link)
		want   ErrorKind
	}{
		{"kind", func(l *Link) { l.Kind = 0 }, NewerVersion},
		{"domain", func(l *Link) { l.Domain = strings.Repeat("d", 254) }, Malformed},
		{"domain that is no UTF-8", func(l *Link) { l.Domain = "\xff" }, Malformed},
		{"no endpoint", func(l *Link) { l.Endpoints = nil }, Malformed},
		{"nine endpoints", func(l *Link) { l.Endpoints = make([]Endpoint, 9) }, Malformed},
		{"three pins", func(l *Link) { l.Pins = make([][32]byte, 3) }, Malformed},
		{"fraction of a second", func(l *Link) { l.Expires = l.Expires.Add(1) }, Malformed},
		{"after 2106", func(l *Link) { l.Expires = time.Unix(1<<32, 0) }, Malformed},
		{"too long", func(l *Link) {
			l.Endpoints = nil
			for range 8 {
				l.Endpoints = append(l.Endpoints, Endpoint{Transport: "sse", Host: strings.Repeat("h", 200), Port: 1})
			}
		}, Malformed},
		{"another root", func(l *Link) { l.Root = [32]byte(other.Public().(ed25519.PublicKey)) }, BadSignature},
	} {
		l := exampleLink(t)
		c.change(&l)
		if s, err := l.Sign(exampleRoot()); KindOf(err) != c.want || s != "" {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := exampleLink(t).Sign(nil); KindOf(err) != BadSignature {
		t.Error(err)
	}
}

func TestLinksAreNotLogged(t *testing.T) {
	l, err := Parse(sign(t, exampleLink(t)))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("link", "link", l)
	fmt.Fprintf(&b, "%#v", l)
	for _, secret := range []string{hex.EncodeToString(l.Secret[:]), "aeaqci", "1, 2, 3", "0x1, 0x2", "http2"} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("%s in %s", secret, b.String())
		}
	}
}

func FuzzParse(f *testing.F) {
	l := exampleLink(f)
	f.Add(sign(f, l))
	l.Pins = [][32]byte{{1}, {2}}
	f.Add(QR(sign(f, l)))
	l.Root = [32]byte(exampleRoot().Public().(ed25519.PublicKey))
	f.Add(seal(append(l.body(), 128, 1, 7)))
	f.Add("https://h/#ai")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := Parse(s)
		if err != nil {
			if KindOf(err) == 0 {
				t.Fatal(err)
			}
			return
		}
		again, err := Parse(l.String())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(l, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzBody signs what it is given, so that the fields are reached.
func FuzzBody(f *testing.F) {
	l := exampleLink(f)
	l.Root = [32]byte(exampleRoot().Public().(ed25519.PublicKey))
	f.Add(l.body())
	l.Pins, l.Endpoints = [][32]byte{{1}, {2}}, append(l.Endpoints, Endpoint{Transport: "sse", Host: "h", Port: 1})
	f.Add(l.body())
	f.Add(append(l.body(), 128, 1, 7))
	f.Fuzz(func(t *testing.T, body []byte) {
		l, err := Parse(seal(body))
		if err != nil {
			return
		}
		if out := l.body(); !bytes.Equal(out, body) && !bytes.HasPrefix(body, out) {
			t.Fatalf("%x becomes %x", body, out)
		} else if len(body) > len(out) && body[len(out)] < tagSkip {
			t.Fatalf("%x is lost", body[len(out):])
		}
	})
}

func BenchmarkParse(b *testing.B) {
	s := sign(b, exampleLink(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(s); err != nil {
			b.Fatal(err)
		}
	}
}
