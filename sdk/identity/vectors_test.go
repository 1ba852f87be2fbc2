package identity

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"

	"filippo.io/edwards25519"
	"github.com/google/go-cmp/cmp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func key32(t testing.TB, s string) [32]byte {
	t.Helper()
	return [32]byte(unhex(t, s))
}

func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if diff := cmp.Diff(hex.EncodeToString(want), hex.EncodeToString(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

type zkpVector struct {
	Challenge    string `json:"challenge_scalar_hex"`
	XOF          string `json:"challenge_xof64_hex"`
	ClientStatic string `json:"client_static"`
	Commitment   string `json:"commitment"`
	Context      string `json:"context_hex"`
	DeviceID     string `json:"device_id"`
	Private      string `json:"device_private"`
	Public       string `json:"device_public"`
	Domain       string `json:"domain"`
	Random       string `json:"randomness64_hex"`
	Response     string `json:"response"`
	Tampered     string `json:"tampered_response"`
}

type certificateVector struct {
	Canonical string `json:"canonical_hex"`
	Signature string `json:"signature"`
	Wire      string `json:"wire_json_sorted"`
}

type vectors struct {
	DeviceKeys []struct {
		Seed    string `json:"seed_hex"`
		Private string `json:"device_private"`
		Public  string `json:"device_public"`
		Static  string `json:"client_static_public"`
	} `json:"device_keys"`
	Certificates struct {
		CASeed     string            `json:"ca_seed_hex"`
		CAPrivate  string            `json:"ca_private"`
		CAPublic   string            `json:"ca_public"`
		CAIssued   certificateVector `json:"ca_issued"`
		SelfIssued certificateVector `json:"self_issued"`
		Escaping   certificateVector `json:"escaping"`
	} `json:"certificates"`
	ZKP      map[string]zkpVector `json:"zkp"`
	Rotation struct {
		DeviceID      string `json:"device_id"`
		Digest        string `json:"digest_without_nonce"`
		DigestNonce   string `json:"digest_with_nonce"`
		ExpiresAt     int64  `json:"expires_at_unix"`
		NewPublic     string `json:"new_public"`
		Nonce         string `json:"nonce"`
		OldPrivate    string `json:"old_private"`
		Signature     string `json:"signature_without_nonce"`
		SignatureNone string `json:"signature_with_nonce"`
	} `json:"device_rotation"`
	Sample struct {
		Private string `json:"private_hex"`
		Public  string `json:"public_hex"`
	} `json:"x25519_doc_sample"`
}

func load(t testing.TB) (v vectors) {
	t.Helper()
	b, err := os.ReadFile("testdata/ccp1.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVectorDeviceKeys(t *testing.T) {
	v := load(t)
	if len(v.DeviceKeys) != 3 {
		t.Fatalf("%d keys", len(v.DeviceKeys))
	}
	for _, k := range v.DeviceKeys {
		d, err := DeriveDevice(unhex(t, k.Seed))
		if err != nil {
			t.Fatal(err)
		}
		public := d.Public()
		private, static := d.Static()
		same(t, "private", d.Private[:], unhex(t, k.Private))
		same(t, "public", public[:], unhex(t, k.Public))
		same(t, "static private", private[:], unhex(t, k.Private))
		same(t, "static public", static[:], unhex(t, k.Static))
		if err := CheckPublic(public); err != nil {
			t.Error(err)
		}
	}
	_, sample := Device{Private: key32(t, v.Sample.Private)}.Static()
	same(t, "sample of the reference's documentation", sample[:], unhex(t, v.Sample.Public))
}

func TestVectorCertificates(t *testing.T) {
	v := load(t)
	ca, err := NewCA(unhex(t, v.Certificates.CASeed))
	if err != nil {
		t.Fatal(err)
	}
	public := ca.Public()
	same(t, "ca", public[:], unhex(t, v.Certificates.CAPublic))
	same(t, "ca private", ca.key[:32], unhex(t, v.Certificates.CAPrivate))
	device, err := DeriveDevice(unhex(t, v.DeviceKeys[0].Seed))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		vector certificateVector
		key    ed25519.PrivateKey
		cert   Certificate
	}{
		{"ca issued", v.Certificates.CAIssued, ca.key, Certificate{Serial: 7, UserID: "user-1", IssuedAt: 1760000000, ExpiresAt: 1762592000, Issuer: public}},
		{"self issued", v.Certificates.SelfIssued, device.key(), Certificate{Serial: 42, UserID: "user-1", IssuedAt: 1, ExpiresAt: 2, Issuer: device.Public()}},
		{"escaping", v.Certificates.Escaping, ca.key, Certificate{
			Serial: 18446744073709551615, UserID: "u<&>\"\\é\u2028\x7f\n\b\x01", IssuedAt: 1760000000, ExpiresAt: 1762592000, Issuer: public,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := test.cert
			c.DeviceID, c.PublicKey = "device-1", device.Public()
			c.Signature = [64]byte(unhex(t, test.vector.Signature))
			same(t, "signed bytes", c.SignedBytes(), unhex(t, test.vector.Canonical))
			same(t, "signature", ed25519.Sign(test.key, c.SignedBytes()), c.Signature[:])
			if err := c.Verify(c.Issuer); err != nil {
				t.Error(err)
			}
			wire, err := c.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if test.vector.Wire != "" && string(wire) != test.vector.Wire {
				t.Errorf("wire %s", wire)
			}
			back, err := ParseCertificate(wire)
			if err != nil || back != c {
				t.Errorf("%+v, %v", back, err)
			}
		})
	}
}

func TestVectorProofs(t *testing.T) {
	v := load(t)
	for _, name := range []string{"session", "unit_test_like"} {
		t.Run(name, func(t *testing.T) {
			z := v.ZKP[name]
			public, static := key32(t, z.Public), key32(t, z.ClientStatic)
			context := proofContext(z.Domain, z.DeviceID, public, static)
			same(t, "context", context, unhex(t, z.Context))
			c, err := challenge(context, public, key32(t, z.Commitment))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "challenge", c.Bytes(), unhex(t, z.Challenge))
			wide, _ := edwards25519.NewScalar().SetUniformBytes(unhex(t, z.XOF))
			same(t, "xof", c.Bytes(), wide.Bytes())

			d := Device{Private: key32(t, z.Private)}
			p, err := ProveStatic(d, z.Domain, z.DeviceID, static, bytes.NewReader(unhex(t, z.Random)))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "commitment", p.Commitment[:], unhex(t, z.Commitment))
			same(t, "response", p.Response[:], unhex(t, z.Response))
			if err := VerifyStatic(public, z.Domain, z.DeviceID, static, p); err != nil {
				t.Error(err)
			}
			p.Response = key32(t, z.Tampered)
			if err := VerifyStatic(public, z.Domain, z.DeviceID, static, p); !errors.Is(err, ErrProof) {
				t.Errorf("tampered: %v", err)
			}
		})
	}
}

func TestVectorRotation(t *testing.T) {
	v := load(t).Rotation
	old := Device{Private: key32(t, v.OldPrivate)}
	for _, test := range []struct {
		nonce             []byte
		digest, signature string
	}{
		{nil, v.Digest, v.Signature},
		{unhex(t, v.Nonce), v.DigestNonce, v.SignatureNone},
	} {
		r := Rotation{DeviceID: v.DeviceID, NewPublic: key32(t, v.NewPublic), ExpiresAt: v.ExpiresAt, Nonce: test.nonce}
		digest := r.Digest()
		same(t, "digest", digest[:], unhex(t, test.digest))
		signature := r.Sign(old)
		same(t, "signature", signature[:], unhex(t, test.signature))
		if err := r.Verify(old.Public(), signature[:]); err != nil {
			t.Error(err)
		}
		for name, bad := range map[string]Rotation{
			"device": {DeviceID: "device-2", NewPublic: r.NewPublic, ExpiresAt: r.ExpiresAt, Nonce: r.Nonce},
			"key":    {DeviceID: r.DeviceID, NewPublic: old.Public(), ExpiresAt: r.ExpiresAt, Nonce: r.Nonce},
			"expiry": {DeviceID: r.DeviceID, NewPublic: r.NewPublic, ExpiresAt: r.ExpiresAt + 1, Nonce: r.Nonce},
			"nonce":  {DeviceID: r.DeviceID, NewPublic: r.NewPublic, ExpiresAt: r.ExpiresAt, Nonce: append(slices.Clone(r.Nonce), 0)},
		} {
			if err := bad.Verify(old.Public(), signature[:]); !errors.Is(err, ErrSignature) {
				t.Errorf("another %s: %v", name, err)
			}
		}
		small := r
		small.NewPublic = [32]byte{1}
		forged := small.Sign(old)
		if err := small.Verify(old.Public(), forged[:]); !errors.Is(err, ErrPublic) {
			t.Errorf("rotation to a small-order key: %v", err)
		}
	}
}

// TestWycheproofEd25519 runs every group over the verifier that all labelled
// signatures go through.
func TestWycheproofEd25519(t *testing.T) {
	f, err := os.Open("testdata/ed25519.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	count := 0
	for lines := bufio.NewScanner(f); lines.Scan(); count++ {
		var v struct {
			ID                       int
			Public, Msg, Sig, Result string
		}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		err := verify(key32(t, v.Public), unhex(t, v.Msg), unhex(t, v.Sig))
		if (err == nil) != (v.Result == "valid") {
			t.Errorf("%d is %s: %v", v.ID, v.Result, err)
		}
	}
	if count != 151 {
		t.Errorf("%d vectors", count)
	}
}
