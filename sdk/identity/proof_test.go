package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/edwards25519"
	"github.com/google/go-cmp/cmp"
)

func device(t testing.TB, seed byte) Device {
	t.Helper()
	d, err := DeriveDevice(bytes.Repeat([]byte{seed}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// smallPoints lists the eight points of small order in their canonical encoding.
func smallPoints(t testing.TB) [][32]byte {
	t.Helper()
	// A point of order 8; its multiples are the eight.
	p, err := new(edwards25519.Point).SetBytes(unhex(t, "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"))
	if err != nil {
		t.Fatal(err)
	}
	var list [][32]byte
	for q := edwards25519.NewIdentityPoint(); len(list) < 8; q = new(edwards25519.Point).Add(q, p) {
		list = append(list, [32]byte(q.Bytes()))
	}
	return list
}

// nonCanonical lists encodings that decode but are not the canonical ones: y
// not reduced mod p, and x = 0 with the sign bit set.
func nonCanonical(t testing.TB) (list [][32]byte) {
	t.Helper()
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	for y := int64(0); y < 19; y++ {
		for _, sign := range []byte{0, 0x80} {
			var b [32]byte
			new(big.Int).Add(p, big.NewInt(y)).FillBytes(b[:])
			for i := range 16 {
				b[i], b[31-i] = b[31-i], b[i]
			}
			b[31] |= sign
			if _, err := new(edwards25519.Point).SetBytes(b[:]); err == nil {
				list = append(list, b)
			}
		}
	}
	one := [32]byte{1}
	one[31] = 0x80
	return append(list, one)
}

func TestCheckPublic(t *testing.T) {
	if err := CheckPublic(device(t, 1).Public()); err != nil {
		t.Error(err)
	}
	small, odd := smallPoints(t), nonCanonical(t)
	seen := map[[32]byte]bool{}
	for _, p := range small {
		seen[p] = true
	}
	if len(seen) != 8 || len(odd) < 20 {
		t.Fatalf("%d small-order points, %d odd encodings", len(seen), len(odd))
	}
	for _, p := range append(small, odd...) {
		if err := CheckPublic(p); !errors.Is(err, ErrPublic) {
			t.Errorf("%x: %v", p, err)
		}
	}
	off := [32]byte{2} // y = 2 is on no point
	if err := CheckPublic(off); !errors.Is(err, ErrPublic) {
		t.Errorf("off the curve: %v", err)
	}
}

// W5: the vector's forgery under the identity point, and the same forgery under
// every other point of small order, are refused for proofs and signatures.
func TestW5SmallOrderForgery(t *testing.T) {
	z := load(t).ZKP["small_order_forgery"]
	p := Proof{Commitment: key32(t, z.Commitment), Response: key32(t, z.Response)}
	for _, domain := range []string{"example.org", "any.example"} {
		if err := VerifyStatic(key32(t, z.Public), domain, "device-1", key32(t, z.ClientStatic), p); !errors.Is(err, ErrPublic) {
			t.Errorf("the vector's forgery: %v", err)
		}
	}
	for _, public := range smallPoints(t) {
		// s*B = R + c*A holds for A = 0 and R = s*B; for the others in one of eight tries.
		if err := VerifyStatic(public, "d", "i", [32]byte{9}, p); !errors.Is(err, ErrPublic) {
			t.Errorf("%x: %v", public, err)
		}
		// The Ed25519 form of it: R = 0, S = 0 verifies under the identity key.
		signature := append(edwards25519.NewIdentityPoint().Bytes(), make([]byte, 32)...)
		if err := VerifyConfirm(public, "d", "i", [32]byte{9}, make([]byte, 32), signature); !errors.Is(err, ErrPublic) {
			t.Errorf("%x: %v", public, err)
		}
	}
	identity := [32]byte{1}
	forged := append(edwards25519.NewIdentityPoint().Bytes(), make([]byte, 32)...)
	if !ed25519.Verify(identity[:], []byte("anything"), forged) {
		t.Error("the forgery does not show what it should: crypto/ed25519 refuses it by itself")
	}
}

// Commitments of small order or odd encoding and responses not below L are
// refused, also where the equation would hold.
func TestStaticProofCanonical(t *testing.T) {
	d := device(t, 1)
	public := d.Public()
	p, err := ProveStatic(d, "d", "i", [32]byte{9}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyStatic(public, "d", "i", [32]byte{9}, p); err != nil {
		t.Fatal(err)
	}
	// s + L is the same residue.
	l, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	var be [32]byte
	for i, b := range p.Response {
		be[31-i] = b
	}
	new(big.Int).Add(new(big.Int).SetBytes(be[:]), l).FillBytes(be[:])
	high := p
	for i := range be {
		high.Response[i] = be[31-i]
	}
	if err := VerifyStatic(public, "d", "i", [32]byte{9}, high); !errors.Is(err, ErrProof) {
		t.Errorf("response over L: %v", err)
	}
	for _, commitment := range append(smallPoints(t), nonCanonical(t)...) {
		bad := p
		bad.Commitment = commitment
		if err := VerifyStatic(public, "d", "i", [32]byte{9}, bad); !errors.Is(err, ErrProof) {
			t.Errorf("commitment %x: %v", commitment, err)
		}
	}
	// With r = 0 the equation holds for R = 0: still refused.
	zero, err := ProveStatic(d, "d", "i", [32]byte{9}, bytes.NewReader(make([]byte, 64)))
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyStatic(public, "d", "i", [32]byte{9}, zero); !errors.Is(err, ErrProof) {
		t.Errorf("commitment of zero: %v", err)
	}
}

// W3: the static proof is bound to the Noise key it names, so a copied Hello
// fails under another one; what it cannot give, freshness, Confirm gives: a
// proof of one handshake is worth nothing in the next.
func TestW3Replay(t *testing.T) {
	d := device(t, 1)
	static, other := [32]byte{1, 2}, [32]byte{3, 4}
	p, err := ProveStatic(d, "example.org", "dev", static, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"noise key": VerifyStatic(d.Public(), "example.org", "dev", other, p),
		"domain":    VerifyStatic(d.Public(), "Example.org", "dev", static, p),
		"device id": VerifyStatic(d.Public(), "example.org", "dev2", static, p),
		"key":       VerifyStatic(device(t, 2).Public(), "example.org", "dev", static, p),
	} {
		if !errors.Is(err, ErrProof) {
			t.Errorf("static proof under another %s: %v", name, err)
		}
	}
	h := bytes.Repeat([]byte{7}, 32)
	proof := SignConfirm(d, "example.org", "dev", static, h)
	if err := VerifyConfirm(d.Public(), "example.org", "dev", static, h, proof[:]); err != nil {
		t.Fatal(err)
	}
	next := bytes.Clone(h)
	next[31] ^= 1
	for name, err := range map[string]error{
		"handshake":          VerifyConfirm(d.Public(), "example.org", "dev", static, next, proof[:]),
		"short hash":         VerifyConfirm(d.Public(), "example.org", "dev", static, h[:31], proof[:]),
		"no hash":            VerifyConfirm(d.Public(), "example.org", "dev", static, nil, proof[:]),
		"noise key":          VerifyConfirm(d.Public(), "example.org", "dev", other, h, proof[:]),
		"domain":             VerifyConfirm(d.Public(), "example.or", "gdev", static, h, proof[:]),
		"key":                VerifyConfirm(device(t, 2).Public(), "example.org", "dev", static, h, proof[:]),
		"truncated proof":    VerifyConfirm(d.Public(), "example.org", "dev", static, h, proof[:63]),
		"empty proof":        VerifyConfirm(d.Public(), "example.org", "dev", static, h, nil),
		"proof with garbage": VerifyConfirm(d.Public(), "example.org", "dev", static, h, append(proof[:], 0)),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

// The worked example of protocol-extensions, section 2. Its "device seed" is
// the Ed25519 seed itself, not what BLAKE3 makes one of.
func TestWorkedConfirm(t *testing.T) {
	d := Device{Private: [32]byte(bytes.Repeat([]byte{0x66}, 32))}
	public := d.Public()
	if !strings.HasPrefix(d.String(), "ed25519:34b4d904") || !strings.HasSuffix(d.String(), "78e3a746") {
		t.Errorf("device public %x", public)
	}
	_, static := Device{Private: [32]byte(bytes.Repeat([]byte{0x44}, 32))}.Static()
	h := unhex(t, "2032abae9666c7539d7c833392106538a888f573a948dc2dc11a70fb3b921ab7")
	want := unhex(t, "b57bf5ab6666dc6defcf2d9617918c6c063f70d19f2170e8b3ec86f83377852f86976f2aaf6569c06794b32bbc2ab988c097e617bf7e615b84f595081419950c")
	got := SignConfirm(d, "relay.example", "dev-a", static, h)
	same(t, "proof", got[:], want)
	if err := VerifyConfirm(public, "relay.example", "dev-a", static, h, want); err != nil {
		t.Error(err)
	}
}

func TestLabels(t *testing.T) {
	d := device(t, 3)
	signature := Sign("commucat/link/1", d.key(), []byte("bytes"))
	if err := Verify("commucat/link/1", d.Public(), []byte("bytes"), signature[:]); err != nil {
		t.Fatal(err)
	}
	want := ed25519.Sign(d.key(), []byte("commucat/link/1\x00bytes"))
	same(t, "label | 00 | bytes", signature[:], want)
	if err := Verify("commucat/catalogue/1", d.Public(), []byte("bytes"), signature[:]); !errors.Is(err, ErrSignature) {
		t.Errorf("another label: %v", err)
	}
}

func TestProofJSON(t *testing.T) {
	z := load(t).ZKP["session"]
	p := Proof{Commitment: key32(t, z.Commitment), Response: key32(t, z.Response)}
	text, err := json.Marshal(p)
	if err != nil || string(text) != `{"commitment":"`+z.Commitment+`","response":"`+z.Response+`"}` {
		t.Errorf("%s, %v", text, err)
	}
	upper := `{"other":1,"commitment":"` + strings.ToUpper(z.Commitment) + `","response":"` + z.Response + `"}`
	if got, err := ParseProof([]byte(upper)); err != nil || cmp.Diff(p, got) != "" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{
		``, `null`, `[]`, `"x"`, `{}`,
		`{"commitment":"` + z.Commitment + `"}`,
		`{"commitment":"` + z.Commitment + `","response":null}`,
		`{"commitment":"` + z.Commitment + `","response":1}`,
		`{"commitment":"` + z.Commitment[1:] + `","response":"` + z.Response + `"}`,
		`{"commitment":"` + z.Commitment + `00","response":"` + z.Response + `"}`,
		`{"commitment":"` + z.Commitment + `","response":"0x` + z.Response[2:] + `"}`,
		`{"commitment":" ` + z.Commitment[1:] + `","response":"` + z.Response + `"}`,
		`{"Commitment":"` + z.Commitment + `","response":"` + z.Response + `"}`,
	} {
		if _, err := ParseProof([]byte(bad)); !errors.Is(err, &Error{Kind: KindProof}) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestRandomnessFails(t *testing.T) {
	broken := iotest.ErrReader(io.ErrUnexpectedEOF)
	if _, err := ProveStatic(device(t, 1), "d", "i", [32]byte{}, broken); !errors.Is(err, &Error{Kind: KindRandom}) {
		t.Errorf("ProveStatic: %v", err)
	}
	if _, err := GenerateDevice(broken); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("GenerateDevice: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("an id without randomness")
		}
	}()
	NewID(broken)
}

func FuzzProof(f *testing.F) {
	f.Add([]byte(`{"commitment":"` + strings.Repeat("00", 32) + `","response":"` + strings.Repeat("aF", 32) + `"}`))
	f.Add([]byte(`{"commitment":"\u0030"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := ParseProof(in)
		if err != nil {
			return
		}
		text, err := p.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseProof(text); err != nil || back != p {
			t.Fatalf("%v, %v", back, err)
		}
		_ = VerifyStatic(p.Commitment, "d", "i", p.Response, p) // no panic
	})
}

func FuzzCheckPublic(f *testing.F) {
	d, _ := DeriveDevice(make([]byte, 32))
	public := d.Public()
	f.Add(public[:])
	for _, p := range append(smallPoints(f), nonCanonical(f)...) {
		f.Add(p[:])
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) != 32 {
			return
		}
		// The rule itself, by arithmetic.
		p, err := new(edwards25519.Point).SetBytes(in)
		good := err == nil && bytes.Equal(p.Bytes(), in) &&
			new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 0
		if (CheckPublic([32]byte(in)) == nil) != good {
			t.Fatalf("CheckPublic says %v, the curve %t", CheckPublic([32]byte(in)), good)
		}
	})
}
