package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func authority(t testing.TB) CA {
	t.Helper()
	ca, err := NewCA(bytes.Repeat([]byte{0x20}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

var issued = time.Unix(1_760_000_000, 0)

func TestIssue(t *testing.T) {
	ca := authority(t)
	c, err := ca.Issue("user-1", "device-1", device(t, 1).Public(), issued, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.ExpiresAt-c.IssuedAt != 2_592_000 || c.Issuer != ca.Public() || c.Serial == 0 {
		t.Errorf("%+v", c)
	}
	if err := c.Verify(ca.Public()); err != nil {
		t.Error(err)
	}
	if err := c.Verify(device(t, 1).Public()); !errors.Is(err, ErrIssuer) {
		t.Errorf("another issuer: %v", err)
	}
	for name, change := range map[string]func(*Certificate){
		"serial":  func(c *Certificate) { c.Serial++ },
		"user":    func(c *Certificate) { c.UserID += "0" },
		"device":  func(c *Certificate) { c.DeviceID = "device-2" },
		"key":     func(c *Certificate) { c.PublicKey[0] ^= 1 },
		"issued":  func(c *Certificate) { c.IssuedAt-- },
		"expires": func(c *Certificate) { c.ExpiresAt++ },
		"sig":     func(c *Certificate) { c.Signature[63] ^= 1 },
	} {
		bad := c
		change(&bad)
		if err := bad.Verify(ca.Public()); !errors.Is(err, ErrSignature) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

func TestIssueRefused(t *testing.T) {
	ca, good := authority(t), device(t, 1).Public()
	for name, test := range map[string]struct {
		ca           CA
		user, device string
		key          [32]byte
		validity     time.Duration
		kind         ErrorKind
	}{
		"zero ca":      {CA{}, "u", "d", good, 0, KindCertificate},
		"user id":      {ca, "u\xff", "d", good, 0, KindCertificate},
		"device id":    {ca, "u", "\xc0\x80", good, 0, KindCertificate},
		"small order":  {ca, "u", "d", [32]byte{1}, 0, KindPublic},
		"no validity":  {ca, "u", "d", good, -time.Hour, KindCertificate},
		"half second":  {ca, "u", "d", good, time.Second / 2, KindCertificate},
		"id too long":  {ca, strings.Repeat("u", MaxCertificate), "d", good, 0, KindCertificate},
		"much escaped": {ca, strings.Repeat("\x01", 3000), "d", good, 0, KindCertificate},
	} {
		if _, err := test.ca.Issue(test.user, test.device, test.key, issued, test.validity, nil); !errors.Is(err, &Error{Kind: test.kind}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if (CA{}).Public() != [32]byte{} {
		t.Error("zero ca")
	}
	if _, err := NewCA(make([]byte, 31)); !errors.Is(err, ErrSeed) {
		t.Errorf("short seed: %v", err)
	}
	if _, err := DeriveDevice(nil); !errors.Is(err, ErrSeed) {
		t.Errorf("no seed: %v", err)
	}
}

func TestValid(t *testing.T) {
	for name, test := range map[string]struct {
		from, to int64
		ok       bool
	}{
		"now":               {0, 10, true},
		"skew of 300 s":     {300, 400, true},
		"skew of 301 s":     {301, 400, false},
		"expires now":       {-10, 0, false},
		"expires next":      {-10, 1, true},
		"expired":           {-10, -5, false},
		"reversed":          {10, 5, false},
		"empty":             {5, 5, false},
		"the widest":        {math.MinInt64 / 2, math.MaxInt64 / 2, true},
		"the widest, later": {math.MaxInt64 / 2, math.MaxInt64 - 1760000000, false},
	} {
		c := Certificate{IssuedAt: issued.Unix() + test.from, ExpiresAt: issued.Unix() + test.to}
		if err := c.Valid(issued); (err == nil) != test.ok || (err != nil && !errors.Is(err, ErrValidity)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRenewalDue(t *testing.T) {
	c := Certificate{IssuedAt: 1000, ExpiresAt: 1300}
	for at, want := range map[int64]bool{900: false, 1000: false, 1200: false, 1201: true, 1300: true, 5000: true} {
		if got := c.RenewalDue(time.Unix(at, 0)); got != want {
			t.Errorf("at %d: %v", at, got)
		}
	}
	if !(Certificate{IssuedAt: 5, ExpiresAt: 5}).RenewalDue(issued) {
		t.Error("a certificate without validity")
	}
	if (Certificate{IssuedAt: math.MinInt64, ExpiresAt: math.MaxInt64}).RenewalDue(issued) {
		t.Error("a span over int64")
	}
}

func TestParseCertificate(t *testing.T) {
	ca := authority(t)
	c, err := ca.Issue("user-1", "device-1", device(t, 1).Public(), issued, time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	good, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, to string) string {
		out := strings.Replace(string(good), old, to, 1)
		if out == string(good) {
			t.Fatalf("%q is not there", old)
		}
		return out
	}
	issuedAt := fmt.Sprintf(`"issued_at":%d`, c.IssuedAt)
	serial := fmt.Sprintf(`"serial":%d`, c.Serial)
	for name, text := range map[string]string{
		"as it is":     string(good),
		"unknown key":  replace(`{`, `{"x":{"y":[1]},`),
		"last wins":    replace(`{`, `{"serial":"no",`),
		"white space":  replace(`{`, " {\n\t"),
		"upper hex":    replace(fmt.Sprintf("%x", c.PublicKey), fmt.Sprintf("%X", c.PublicKey)),
		"escaped text": replace(`"user-1"`, `"\u0075ser-1"`),
	} {
		got, err := ParseCertificate([]byte(text))
		if err != nil || cmp.Diff(c, got) != "" {
			t.Errorf("%s: %v", name, err)
		}
		if err := got.Verify(ca.Public()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"empty":          ``,
		"null":           `null`,
		"array":          `[]`,
		"text":           `"x"`,
		"trailing":       string(good) + "x",
		"missing key":    replace(`"user_id"`, `"user"`),
		"other case":     replace(`"user_id"`, `"User_id"`),
		"null value":     replace(`"user-1"`, `null`),
		"number as text": replace(serial, `"serial":"1"`),
		"fraction":       replace(issuedAt, `"issued_at":1.0`),
		"exponent":       replace(issuedAt, `"issued_at":1e3`),
		"minus zero":     replace(issuedAt, `"issued_at":-0`),
		"negative":       replace(serial, `"serial":-1`),
		"over u64":       replace(serial, `"serial":18446744073709551616`),
		"over i64":       replace(issuedAt, `"issued_at":9223372036854775808`),
		"short hex":      replace(fmt.Sprintf("%x", c.PublicKey), fmt.Sprintf("%x", c.PublicKey[:31])),
		"long hex":       replace(fmt.Sprintf("%x", c.PublicKey), fmt.Sprintf("%x00", c.PublicKey)),
		"no hex":         replace(fmt.Sprintf("%x", c.PublicKey[:1]), "zz"),
		"lone high":      replace(`"user-1"`, `"\ud800"`),
		"lone low":       replace(`"user-1"`, `"a\uDC00b"`),
		"two high":       replace(`"user-1"`, `"\ud800\ud800\udc00"`),
		"high at end":    replace(`"user-1"`, `"\udbffx\udc00"`),
		"not utf-8":      replace(`user-1`, "user\xff"),
		"too long":       replace(`{`, `{"x":"`+strings.Repeat("x", MaxCertificate)+`",`),
		"byte order":     "\ufeff" + string(good),
	} {
		if _, err := ParseCertificate([]byte(text)); !errors.Is(err, ErrCertificate) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := ParseCertificate([]byte(replace(`"user-1"`, `"\ud83d\ude00 \\ud800"`))); err != nil || got.UserID != `😀 \ud800` {
		t.Errorf("a pair and an escaped backslash: %q, %v", got.UserID, err)
	}
	bad := c
	bad.UserID = "\xff"
	if _, err := bad.MarshalJSON(); !errors.Is(err, ErrCertificate) {
		t.Errorf("marshal of bytes that are no text: %v", err)
	}
}

// What the writer writes the reader reads, for every text; encoding/json agrees
// on the meaning, and a certificate inside another object survives its escapes.
func TestCertificateProperty(t *testing.T) {
	ca := authority(t)
	rapid.Check(t, func(t *rapid.T) {
		c := Certificate{
			Serial: rapid.Uint64().Draw(t, "serial"), UserID: rapid.String().Draw(t, "user"), DeviceID: rapid.String().Draw(t, "device"),
			IssuedAt: rapid.Int64().Draw(t, "issued"), ExpiresAt: rapid.Int64().Draw(t, "expires"), Issuer: ca.Public(),
		}
		copy(c.PublicKey[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
		c.Signature = [64]byte(bytes.Repeat([]byte{1}, 64))
		wire, err := c.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseCertificate(wire); err != nil || back != c {
			t.Fatalf("%s: %+v, %v", wire, back, err)
		}
		var signed struct {
			UserID   string `json:"user_id"`
			DeviceID string `json:"device_id"`
		}
		if err := json.Unmarshal(c.SignedBytes(), &signed); err != nil || signed.UserID != c.UserID || signed.DeviceID != c.DeviceID {
			t.Fatalf("%s: %v", c.SignedBytes(), err)
		}
		var outer struct{ Certificate Certificate }
		text, err := json.Marshal(struct{ Certificate Certificate }{c})
		if err != nil || json.Unmarshal(text, &outer) != nil || outer.Certificate != c {
			t.Fatalf("%s: %v", text, err)
		}
	})
}

func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID(nil)
		if len(id) != 64 || seen[id] || strings.Trim(id, "0123456789abcdef") != "" {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
	if id := NewDeviceID(nil); len(id) != 32 || !ValidDeviceID(id) {
		t.Errorf("device id %q", id)
	}
	if id := NewID(bytes.NewReader(bytes.Repeat([]byte{0xab}, 32))); id != strings.Repeat("ab", 32) {
		t.Errorf("id %q", id)
	}
	for id, want := range map[string]bool{
		"a": true, "A-z_0.9": true, strings.Repeat("x", 64): true, ".": true,
		"": false, strings.Repeat("x", 65): false, "a b": false, "a/b": false, "ä": false, "a\x00": false, "a@b": false, "a\n": false,
	} {
		if ValidDeviceID(id) != want {
			t.Errorf("%q: %v", id, !want)
		}
	}
}

// No verb and no logger shows a private key.
func TestSecretsDoNotPrint(t *testing.T) {
	d := Device{Private: [32]byte(bytes.Repeat([]byte{0xab}, 32))}
	ca := CA{key: d.key()}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "device", d, "ca", ca)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "device", d, "ca", ca, "pointer", &d)
	text, _ := json.Marshal(struct {
		D Device
		C CA
	}{d, ca})
	log.Write(text)
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%d", "%s", "%q"} {
		_, _ = fmt.Fprintf(&log, verb+verb+verb, d, &d, ca)
	}
	for _, secret := range []string{"abababab", "ABABABAB", "171 171", "171,171", "0xab, 0xab", `\xab\xab`, "q6ur"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q shows: %s", secret, log.String())
		}
	}
}

func FuzzParseCertificate(f *testing.F) {
	v := load(f).Certificates
	f.Add([]byte(v.CAIssued.Wire))
	f.Add([]byte(v.SelfIssued.Wire))
	f.Add([]byte(`{"serial":18446744073709551615,"user_id":"\ud83d\ude00\u0000"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := ParseCertificate(in)
		if err != nil {
			return
		}
		wire, err := c.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseCertificate(wire)
		if len(wire) <= MaxCertificate && (err != nil || back != c) {
			t.Fatalf("%+v, %v", back, err)
		}
		if !json.Valid(c.SignedBytes()) {
			t.Fatalf("signed form %q", c.SignedBytes())
		}
	})
}
