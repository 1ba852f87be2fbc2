package masque

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

// fake is an exporter that depends on everything it is asked with, and on a
// connection.
func fake(connection string) exporter {
	return func(label string, context []byte, length int) ([]byte, error) {
		a := sha256.Sum256([]byte(connection + "\x00" + label + "\x00" + string(context)))
		b := sha256.Sum256(a[:])
		return append(a[:], b[:]...)[:length], nil
	}
}

func testKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

// TestExporterContext holds the context byte by byte (RFC 9729 section 3.1).
func TestExporterContext(t *testing.T) {
	var label string
	var context []byte
	_, _, err := exported(func(l string, c []byte, n int) ([]byte, error) {
		label, context = l, c
		return make([]byte, n), nil
	}, []byte("basement"), bytes.Repeat([]byte{0xaa}, 32), "example.com", 8443)
	if err != nil {
		t.Fatal(err)
	}
	want := "0807" + "08" + "626173656d656e74" + "20" + strings.Repeat("aa", 32) + "05" + "6874747073" +
		"0b" + "6578616d706c652e636f6d" + "20fb" + "00"
	if got := hex.EncodeToString(context); got != want || label != "EXPORTER-HTTP-Concealed-Authentication" {
		t.Errorf("%s %s, want %s", label, got, want)
	}
	// Section 3.3.
	covered := strings.Repeat("20", 64) + hex.EncodeToString([]byte("HTTP Concealed Authentication")) + "00" + strings.Repeat("01", 32)
	if got := hex.EncodeToString(signed(bytes.Repeat([]byte{1}, 32))); got != covered {
		t.Errorf("covered %s", got)
	}
}

func TestProof(t *testing.T) {
	value, err := prove(fake("one"), testKey(1), []byte("basement"), "example.com", 443)
	if err != nil {
		t.Fatal(err)
	}
	p, err := parseProof(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.verify(fake("one"), "example.com", 443); err != nil {
		t.Fatal(err)
	}
	for name, again := range map[string]error{
		"another connection": p.verify(fake("two"), "example.com", 443),
		"another host":       p.verify(fake("one"), "example.org", 443),
		"another port":       p.verify(fake("one"), "example.com", 444),
	} {
		if again == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, change := range map[string]func(*proof){
		"key id":       func(p *proof) { p.keyID = []byte("attic") },
		"public key":   func(p *proof) { p.public = publicOf(testKey(2)) },
		"verification": func(p *proof) { p.verification[3] ^= 1 },
		"signature":    func(p *proof) { p.signature[3] ^= 1 },
	} {
		p, _ := parseProof(value)
		if change(p); p.verify(fake("one"), "example.com", 443) == nil {
			t.Errorf("another %s: accepted", name)
		}
	}
}

func TestParseProof(t *testing.T) {
	value, err := prove(fake("one"), testKey(1), []byte("basement"), "example.com", 443)
	if err != nil {
		t.Fatal(err)
	}
	params := strings.Split(strings.TrimPrefix(value, "Concealed "), ", ")
	for name, c := range map[string]struct {
		value string
		ok    bool
	}{
		"as made":         {value, true},
		"lower case":      {"concealed " + strings.Join(params, ","), true},
		"more space":      {"Concealed   " + strings.Join(params, "  , "), true},
		"other order":     {"Concealed " + strings.Join([]string{params[4], params[3], params[2], params[1], params[0]}, ", "), true},
		"unknown param":   {value + ", x=y", true},
		"empty":           {"", false},
		"no params":       {"Concealed", false},
		"other scheme":    {"Bearer " + strings.Join(params, ", "), false},
		"without k":       {"Concealed " + strings.Join(params[1:], ", "), false},
		"without p":       {"Concealed " + strings.Join(params[:4], ", "), false},
		"k twice":         {value + ", " + params[0], false},
		"s twice":         {value + ", s=2055", false},
		"s with a zero":   {strings.Replace(value, "s=2055", "s=02055", 1), false},
		"RSA":             {strings.Replace(value, "s=2055", "s=2052", 1), false},
		"padding":         {strings.Replace(value, params[1], params[1]+"=", 1), false},
		"quotes":          {strings.Replace(value, params[0], `k="YmFzZW1lbnQ"`, 1), false},
		"short key":       {strings.Replace(value, params[1], "a=AAAA", 1), false},
		"realm":           {value + `, realm="x"`, false},
		"much too long":   {value + ", x=" + strings.Repeat("y", maxCredentials), false},
		"no equals sign":  {value + ", x", false},
		"standard base64": {strings.Replace(value, params[0], "k=ab+/", 1), false},
	} {
		if _, err := parseProof(c.value); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzProof(f *testing.F) {
	value, err := prove(fake("one"), testKey(1), []byte("basement"), "example.com", 443)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Add("Concealed k=, a=,s=2055,v=,p=")
	f.Fuzz(func(t *testing.T, value string) {
		p, err := parseProof(value)
		if err != nil {
			return
		}
		again, err := parseProof("Concealed k=" + encode(p.keyID) + ", a=" + encode(p.public) + ", s=2055, v=" + encode(p.verification) + ", p=" + encode(p.signature))
		if err != nil || !bytes.Equal(p.keyID, again.keyID) || !bytes.Equal(p.signature, again.signature) {
			t.Fatalf("%q: %v", value, err)
		}
		if p.verify(fake("one"), "example.com", 443) == nil && !bytes.Equal(p.public, publicOf(testKey(1))) {
			t.Fatal("a forged proof")
		}
	})
}

func TestAuthority(t *testing.T) {
	for text, want := range map[string]struct {
		host string
		port uint16
	}{
		"example.com": {"example.com", 443}, "example.com:8443": {"example.com", 8443}, "[2001:db8::1]": {"[2001:db8::1]", 443},
		"[2001:db8::1]:8443": {"[2001:db8::1]", 8443}, "192.0.2.1:443": {"192.0.2.1", 443},
		"": {}, ":443": {}, "example.com:": {}, "example.com:0": {}, "example.com:65536": {}, "example.com:x": {},
	} {
		host, port, err := authority(text)
		if host != want.host || port != want.port || (err == nil) != (want.host != "") {
			t.Errorf("%q: %q %d %v", text, host, port, err)
		}
		if err == nil {
			if again, p, err := authority(joinAuthority(host, port)); again != host || p != port || err != nil {
				t.Errorf("%q: joined %q", text, joinAuthority(host, port))
			}
		}
	}
	if got := joinAuthority("2001:db8::1", 443); got != "[2001:db8::1]" {
		t.Error(got)
	}
}
