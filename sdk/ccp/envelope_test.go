package ccp

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Example of protocol-extensions.md section 1. Its digest is that of the text as
// printed, with an ellipsis in place of the handshake.
func TestExampleHelloDigest(t *testing.T) {
	const (
		hello = `{"capabilities":["proof-binding","sealed","records","ack","resume","pq"],"handshake":"…","pattern":"XK"}`
		want  = "5ffdb0b3c12b716f0250084c04fae46b15ebc334f7c64ad31aaec453e2c0db51"
	)
	digest := HelloDigest([]byte(hello))
	if got := string(appendHex(nil, digest[:])); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}

func TestCapabilities(t *testing.T) {
	all := []string{"proof-binding", "sealed", "records", "ack", "resume", "pq"}
	if diff := cmp.Diff(all, AllCapabilities.Names()); diff != "" {
		t.Error(diff)
	}
	for i, bit := range []Capabilities{ProofBinding, Sealed, Records, Ack, Resume, PQ} {
		if bit != 1<<i || ParseCapabilities(all[i:i+1]) != bit {
			t.Errorf("%s is %d", all[i], bit)
		}
	}
	if got := ParseCapabilities([]string{"noise", "zstd", "ack", "ACK", ""}); got != Ack {
		t.Error(got.Names())
	}
	for _, c := range []struct {
		set  Capabilities
		ok   bool
		kept Capabilities
	}{
		{0, true, 0},
		{AllCapabilities, true, AllCapabilities},
		{ProofBinding, true, ProofBinding},
		{Sealed, false, 0},
		{Records, false, 0},
		{Ack | Resume, false, 0},
		{ProofBinding | Resume, false, ProofBinding},
		{ProofBinding | Ack | Resume, true, ProofBinding | Ack | Resume},
		{ProofBinding | PQ, false, ProofBinding},
		{ProofBinding | Sealed | PQ, true, ProofBinding | Sealed | PQ},
		{AllCapabilities &^ ProofBinding, false, 0},
		{AllCapabilities &^ Sealed, false, AllCapabilities &^ (Sealed | PQ)},
	} {
		err := c.set.Check()
		if (err == nil) != c.ok || !c.ok && KindOf(err) != Capability {
			t.Errorf("Check(%v) = %v", c.set.Names(), err)
		}
		if got := Negotiate(c.set, AllCapabilities); got != c.kept {
			t.Errorf("Negotiate(%v) = %v", c.set.Names(), got.Names())
		}
	}
	for set := range AllCapabilities + 1 {
		if err := Negotiate(set, AllCapabilities).Check(); err != nil {
			t.Errorf("Negotiate(%v): %v", set.Names(), err)
		}
	}
	if Ack.Missing(Ack|Records) != Records || !AllCapabilities.Has(PQ) || Ack.Has(Ack|PQ) {
		t.Error("Missing or Has")
	}
}

func TestNegotiateVersion(t *testing.T) {
	for _, c := range []struct{ name, supported, version, want string }{
		{"neither", "", "", ""},
		{"one", "[1]", "", ""},
		{"highest common", "[3,1,2]", "9", ""},
		{"version only", "", "1", ""},
		{"not an array", "1", "", "supported_versions must be an array"},
		{"null", "null", "", "supported_versions must be an array"},
		{"text entry", `["1"]`, "", "supported_versions entries must be unsigned integers"},
		{"negative entry", `[-1]`, "", "supported_versions entries must be unsigned integers"},
		{"float entry", `[1.0]`, "", "supported_versions entries must be unsigned integers"},
		{"range", `[1,65536]`, "", "protocol version 65536 out of range"},
		{"empty", `[]`, "1", "supported_versions cannot be empty"},
		{"no overlap", `[2,3]`, "", "no common protocol version; peer=[2, 3]; supported=[1]"},
		{"text version", "", `"1"`, "protocol_version must be an unsigned integer"},
		{"version range", "", `65536`, "protocol version 65536 out of range"},
		{"other version", "", `2`, "unsupported protocol version 2; supported=[1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h Hello
			if c.supported != "" {
				h.SupportedVersions = Raw(c.supported)
			}
			if c.version != "" {
				h.ProtocolVersion = Raw(c.version)
			}
			v, err := NegotiateVersion(h)
			if c.want == "" {
				if v != 1 || err != nil {
					t.Errorf("%d, %v", v, err)
				}
				return
			}
			if err == nil || err.Error() != "protocol negotiation failed: "+c.want || KindOf(err) != Version {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
	many := Hello{SupportedVersions: Raw("[" + strings.Repeat("2,", 5000) + "2]")}
	if _, err := NegotiateVersion(many); err == nil || len(err.Error()) > 200 {
		t.Errorf("error of %d bytes", len(err.Error()))
	}
}

func sampleHello() Hello {
	return Hello{
		Pattern: PatternXK, Handshake: make([]byte, 48), Capabilities: AllCapabilities.Names(),
		SupportedVersions: Versions(1), KeyVersion: 3, PQ: make([]byte, PQKeySize), Entry: "token",
	}
}

func sampleIdentity() *Identity {
	return &Identity{
		DeviceID: "dev-a", DevicePublic: [32]byte{1}, ClientStatic: [32]byte{2}, Certificate: Raw(`{"serial":1}`),
		User: &UserHints{ID: "u-1", Handle: "alice", DisplayName: "A \"l\"", AvatarURL: "x"},
	}
}

func TestHelloForms(t *testing.T) {
	sealed := sampleHello()
	open := sampleHello()
	open.Identity, open.Proof, open.DeviceCA = sampleIdentity(), &StaticProof{[32]byte{3}, [32]byte{4}}, Raw(`"zz"`)
	for name, h := range map[string]Hello{"sealed": sealed, "open": open} {
		b := h.Marshal()
		got, err := ParseHello(b)
		if err != nil {
			t.Fatal(name, err)
		}
		if diff := cmp.Diff(h, got); diff != "" {
			t.Error(name, diff)
		}
		if c, err := CanonicalJSON(b); err != nil || !bytes.Equal(b, c) {
			t.Errorf("%s is not sorted: %s", name, b)
		}
		golden(t, "hello-"+name+".golden", b)
	}
	if got := sealed.Offer(); got != AllCapabilities {
		t.Error(got.Names())
	}
	open.PQ = nil
	if got := open.Offer(); got != AllCapabilities&^(Sealed|PQ) {
		t.Error(got.Names())
	}
}

func TestHelloMalformed(t *testing.T) {
	hs := strings.Repeat("00", 48)
	id := `"device_id":"d","device_public":"` + strings.Repeat("11", 32) + `","client_static":"` + strings.Repeat("22", 32) + `"`
	zkp := `"zkp":{"commitment":"` + strings.Repeat("33", 32) + `","response":"` + strings.Repeat("44", 32) + `"}`
	base := `"pattern":"XK","handshake":"` + hs + `"`
	for _, c := range []struct{ name, in, field string }{
		{"array", `[]`, ""},
		{"empty", `{}`, "pattern"},
		{"pattern in lower case", `{"pattern":"xk","handshake":"` + hs + `"}`, "pattern"},
		{"pattern key in another case", `{"Pattern":"XK","handshake":"` + hs + `"}`, "pattern"},
		{"no handshake", `{"pattern":"XK"}`, "handshake"},
		{"odd hex", `{"pattern":"XK","handshake":"` + hs + `0"}`, "handshake"},
		{"short message 1", `{"pattern":"XK","handshake":"` + hs[2:] + `"}`, "handshake"},
		{"XK message in IK", `{"pattern":"IK","handshake":"` + hs + `"}`, "handshake"},
		{"capabilities no array", `{` + base + `,"capabilities":"ack"}`, "capabilities"},
		{"capability too long", `{` + base + `,"capabilities":["` + strings.Repeat("a", 33) + `"]}`, "capabilities"},
		{"capability empty", `{` + base + `,"capabilities":[""]}`, "capabilities"},
		{"capability in upper case", `{` + base + `,"capabilities":["ACK"]}`, "capabilities"},
		{"33 capabilities", `{` + base + `,"capabilities":[` + strings.Repeat(`"a",`, 32) + `"a"]}`, "capabilities"},
		{"key negative", `{` + base + `,"key":-1}`, "key"},
		{"key too large", `{` + base + `,"key":4294967296}`, "key"},
		{"pq of another length", `{` + base + `,"pq":"00"}`, "pq"},
		{"entry too long", `{` + base + `,"entry":"` + strings.Repeat("a", 129) + `"}`, "entry"},
		{"identity without proof", `{` + base + `,` + id + `}`, "zkp"},
		{"proof without identity", `{` + base + `,` + zkp + `}`, "device_id"},
		{"certificate without identity", `{` + base + `,"certificate":{}}`, "device_id"},
		{"certificate null", `{` + base + `,` + id + `,` + zkp + `,"certificate":null}`, "certificate"},
		{"device id with a space", `{` + base + `,` + strings.Replace(id, `"d"`, `"d d"`, 1) + `,` + zkp + `}`, "device_id"},
		{"device id empty", `{` + base + `,` + strings.Replace(id, `"d"`, `""`, 1) + `,` + zkp + `}`, "device_id"},
		{"key of 31 bytes", `{` + base + `,` + strings.Replace(id, "1111", "11", 1) + `,` + zkp + `}`, "device_public"},
		{"half a proof", `{` + base + `,` + id + `,"zkp":{"commitment":"` + strings.Repeat("33", 32) + `"}}`, "zkp.response"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseHello([]byte(c.in))
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Kind != Field || e.Field != c.field {
				t.Errorf("%v, want field %s", err, c.field)
			}
		})
	}
	for _, c := range []struct{ name, in string }{
		{"hex in either case", `{` + base + `,` + strings.Replace(id, "1111", "aAFf", 1) + `,` + zkp + `}`},
		{"user is no object", `{` + base + `,` + id + `,` + zkp + `,"user":7}`},
		{"unknown keys", `{` + base + `,"x":[{}]}`},
		{"duplicate keys", `{"pattern":"nothing",` + base + `}`},
	} {
		if _, err := ParseHello([]byte(c.in)); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// The reference looks at the version before anything else.
	h, err := ParseHello([]byte(`{"supported_versions":[2]}`))
	if err == nil {
		t.Fatal("no error")
	}
	if _, err := NegotiateVersion(h); KindOf(err) != Version {
		t.Errorf("the version of a malformed Hello: %v", err)
	}
}

// An id of another type hides user_id; other types count as absent.
func TestUserHints(t *testing.T) {
	for in, want := range map[string]UserHints{
		`{"id":"a","user_id":"b"}`:          {ID: "a"},
		`{"user_id":"b","handle":7}`:        {ID: "b"},
		`{"id":7,"user_id":"b"}`:            {},
		`{"id":null,"display_name":"é"}`:    {DisplayName: "é"},
		`{"avatar_url":"u","unknown":[{}]}`: {AvatarURL: "u"},
	} {
		if diff := cmp.Diff(&want, userHints(Raw(in))); diff != "" {
			t.Error(in, diff)
		}
	}
}

func TestAnswer(t *testing.T) {
	hello := sampleHello().Marshal()
	offer := AllCapabilities
	good := NewAnswer(hello, AllCapabilities, ProofBinding|Ack)
	if got, err := good.Check(hello, offer); got != ProofBinding|Ack || err != nil {
		t.Errorf("%v, %v", got.Names(), err)
	}
	if got, err := (*Answer)(nil).Check(hello, offer); got != 0 || err != nil {
		t.Errorf("reference server: %v, %v", got, err)
	}
	for _, c := range []struct {
		name   string
		change func(*Answer)
		want   ErrorKind
	}{
		{"stripped hello", func(a *Answer) { a.Hello = HelloDigest(bytes.Replace(hello, []byte(`,"pq"]`), []byte(`]`), 1)) }, Downgrade},
		{"not offered by the server", func(a *Answer) { a.Offered = []string{"proof-binding"} }, Capability},
		{"unknown name", func(a *Answer) { a.Accepted = append(a.Accepted, "zstd"); a.Offered = append(a.Offered, "zstd") }, Capability},
		{"broken dependency", func(a *Answer) { a.Accepted = []string{"ack"} }, Capability},
		{"pq without sealed", func(a *Answer) { a.Accepted = []string{"proof-binding", "pq"} }, Capability},
	} {
		a := NewAnswer(hello, AllCapabilities, ProofBinding|Ack)
		c.change(a)
		if _, err := a.Check(hello, offer); KindOf(err) != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := NewAnswer(hello, AllCapabilities, ProofBinding|Ack).Check(hello, ProofBinding); KindOf(err) != Capability {
		t.Errorf("not offered by the client: %v", err)
	}
}

func TestExtForms(t *testing.T) {
	for name, e := range map[string]Ext{
		"sealed":    {Domain: "relay.example", ProtocolVersion: 1, Answer: NewAnswer([]byte(`{}`), AllCapabilities, ProofBinding|Sealed)},
		"reference": {Domain: "relay.example", ProtocolVersion: 1, Session: "s", User: &User{ID: "u-1", Handle: "alice"}},
		"nothing":   {Domain: "d", Answer: &Answer{}},
	} {
		b := e.Marshal()
		got, err := ParseExt(b)
		if err != nil {
			t.Fatal(name, err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Error(name, diff)
		}
		if c, err := CanonicalJSON(b); err != nil || !bytes.Equal(b, c) {
			t.Errorf("%s is not sorted: %s", name, b)
		}
	}
	for _, in := range []string{`{}`, `{"domain":1}`, `{"domain":"d","ext":null}`, `{"domain":"d","ext":{}}`, `{"domain":"d","ext":{"hello":"00","offered":[],"accepted":[]}}`} {
		if _, err := ParseExt([]byte(in)); KindOf(err) != Field {
			t.Errorf("ParseExt(%s): %v", in, err)
		}
	}
}

func sampleConfirm() Confirm {
	return Confirm{
		Proof: [64]byte{9}, Identity: sampleIdentity(), Invite: &[16]byte{1}, Pair: PairSecret([16]byte{7}, "phone"),
		Resume: &[32]byte{5}, Cursor: 9001,
		Keys: []TransportKey{{"amnesiawg", bytes.Repeat([]byte{0x77}, 32)}, {"masque", bytes.Repeat([]byte{0x78}, 32)}},
	}
}

func TestConfirmForms(t *testing.T) {
	for name, c := range map[string]Confirm{"all": sampleConfirm(), "least": {Proof: [64]byte{9}}} {
		b := c.Marshal()
		got, err := ParseConfirm(b)
		if err != nil {
			t.Fatal(name, err)
		}
		if diff := cmp.Diff(c, got); diff != "" {
			t.Error(name, diff)
		}
		if x, err := CanonicalJSON(b); err != nil || !bytes.Equal(b, x) {
			t.Errorf("%s is not sorted: %s", name, b)
		}
		golden(t, "confirm-"+name+".golden", b)
	}
	if s, ok := PairSecret([16]byte{7}, "").Secret(); s != [16]byte{7} || !ok {
		t.Error(s, ok)
	}
	if _, ok := (Pair{Code: "ABCD-1234"}).Secret(); ok {
		t.Error("a short code reads as a secret")
	}
}

func TestConfirmMalformed(t *testing.T) {
	proof := `"proof":"` + strings.Repeat("00", 64) + `"`
	for _, c := range []struct{ name, in, field string }{
		{"no proof", `{}`, "proof"},
		{"short proof", `{"proof":"00"}`, "proof"},
		{"invite padded", `{` + proof + `,"invite":"AAAAAAAAAAAAAAAAAAAAAA=="}`, "invite"},
		{"invite with surplus bits", `{` + proof + `,"invite":"AAAAAAAAAAAAAAAAAAAAAB"}`, "invite"},
		{"invite with a line break", `{` + proof + `,"invite":"AAAAAAAAAAAAAAAAAAAAA\n"}`, "invite"},
		{"keys no object", `{` + proof + `,"transport_keys":[]}`, "transport_keys"},
		{"key with a bad name", `{` + proof + `,"transport_keys":{"A":"AAAA"}}`, "transport_keys"},
		{"key no text", `{` + proof + `,"transport_keys":{"a":1}}`, "transport_keys"},
		{"key empty", `{` + proof + `,"transport_keys":{"a":""}}`, "transport_keys"},
		{"key with surplus bits", `{` + proof + `,"transport_keys":{"a":"AB"}}`, "transport_keys"},
		{"key too long", `{` + proof + `,"transport_keys":{"a":"` + strings.Repeat("A", 87) + `"}}`, "transport_keys"},
		{"key twice", `{` + proof + `,"transport_keys":{"a":"AAAA","a":"AAAA"}}`, "transport_keys"},
		{"too many keys", `{` + proof + `,"transport_keys":{"a":"AAAA","b":"AAAA","c":"AAAA","d":"AAAA","e":"AAAA","f":"AAAA","g":"AAAA","h":"AAAA","i":"AAAA"}}`, "transport_keys"},
		{"invite null", `{` + proof + `,"invite":null}`, "invite"},
		{"pair without code", `{` + proof + `,"pair":{}}`, "pair.code"},
		{"pair with an empty code", `{` + proof + `,"pair":{"code":""}}`, "pair.code"},
		{"pair name too long", `{` + proof + `,"pair":{"code":"x","name":"` + strings.Repeat("n", 129) + `"}}`, "pair.name"},
		{"resume without token", `{` + proof + `,"resume":{}}`, "resume.token"},
		{"resume is a text", `{` + proof + `,"resume":"x"}`, "resume"},
		{"cursor negative", `{` + proof + `,"cursor":-1}`, "cursor"},
		{"half an identity", `{` + proof + `,"device_id":"dev-a"}`, "device_public"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseConfirm([]byte(c.in))
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Kind != Field || e.Field != c.field {
				t.Errorf("%v, want field %s", err, c.field)
			}
		})
	}
	long := `{` + proof + `,"x":"` + strings.Repeat("x", MaxConfirm) + `"}`
	if _, err := ParseConfirm([]byte(long)); KindOf(err) != ControlLimit {
		t.Errorf("over 32 KiB: %v", err)
	}
}

func sampleEstablished() Established {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return Established{
		Session: "s", User: &User{ID: "u-1", Handle: "alice", DisplayName: "Alice"}, DeviceCA: make([]byte, 32),
		NoisePublic: make([]byte, 32), NoiseVersion: 2, NoiseRotatesAt: at, NoiseExpiresAt: at.Add(time.Hour),
		NoiseKeys: []NoiseKey{{Version: 2, Public: [32]byte{1}, ValidAfter: at, RotatesAt: at, ExpiresAt: at}},
		Keepalive: 30, Certificate: &CertificateSummary{Serial: 1 << 63, IssuedAt: 1, ExpiresAt: 2}, DeviceCertificate: Raw(`{"serial":7}`),
		Ext: &AckExt{
			Endpoints: []Endpoint{{"amnesiawg", "relay.example", 41234, "k=x&w=y"}},
			Entry:     &Entry{ID: [8]byte{1}, Key: [16]byte{2}}, Catalogue: Raw(`{"signature":"","signed":""}`), SendWindow: SendWindow, Time: 1799990000000,
			Resume: &ResumeGrant{
				Resumed: true, Token: &[32]byte{3}, Window: 120, Fence: 5, Cursor: 9001,
				Logs: []LogState{{Log: exampleLog, Done: [][2]uint64{{1, 40}, {42, 42}}}},
			},
		},
	}
}

func TestEstablishedForms(t *testing.T) {
	for name, a := range map[string]Established{"all": sampleEstablished(), "least": {}} {
		b := a.Marshal()
		got, err := ParseEstablished(b)
		if err != nil {
			t.Fatal(name, err)
		}
		if diff := cmp.Diff(a, got); diff != "" {
			t.Error(name, diff)
		}
		if x, err := CanonicalJSON(b); err != nil || !bytes.Equal(b, x) {
			t.Errorf("%s is not sorted: %s", name, b)
		}
		golden(t, "established-"+name+".golden", b)
	}
	for _, in := range []string{
		`{}`, `{"handshake":"no"}`, `{"handshake":"ok","noise_rotates_at":"yesterday"}`, `{"handshake":"ok","noise_keys":{}}`,
		`{"handshake":"ok","noise_keys":[1]}`, `{"handshake":"ok","ext":[]}`, `{"handshake":"ok","ext":{"entry":{"id":"00"}}}`,
		`{"handshake":"ok","ext":{"resume":{}}}`, `{"handshake":"ok","ext":{"resume":{"resumed":true,"logs":{}}}}`,
		`{"handshake":"ok","ext":{"resume":{"resumed":true,"logs":[{"log":"a1a2a3a4a5a6a7a8"}]}}}`,
		`{"handshake":"ok","ext":{"resume":{"resumed":true,"logs":[{"log":"a1a2a3a4a5a6a7a8","done":[[2,1]]}]}}}`,
		`{"handshake":"ok","ext":{"resume":{"resumed":true,"token":"AAAA"}}}`,
		`{"handshake":"ok","ext":{"endpoints":{}}}`, `{"handshake":"ok","ext":{"endpoints":[{"host":"h","port":0,"transport":"a"}]}}`,
	} {
		if _, err := ParseEstablished([]byte(in)); KindOf(err) != Field {
			t.Errorf("ParseEstablished(%s): %v", in, err)
		}
	}
}

func TestErrorBody(t *testing.T) {
	for _, c := range []struct {
		e    ErrorBody
		want string
	}{
		{ErrorBody{Error: CodeHandshake}, `{"error":"handshake"}`},
		{ErrorBody{Error: CodeDecode}, `{"error":"decode"}`},
		{ErrorBody{Error: CodeHandshake, Detail: "pairing required", Title: "PairingRequired", PairingRequired: true},
			`{"detail":"pairing required","error":"handshake","pairing_required":true,"title":"PairingRequired"}`},
		{ErrorBody{Error: CodeUnavailable, ID: MessageID{exampleLog, 41}, RetryMS: 250},
			`{"counter":41,"error":"unavailable","log":"a1a2a3a4a5a6a7a8","retry_ms":250}`},
		{ErrorBody{Error: CodeNoChannel, Ack: 9, Detail: "x"}, `{"ack":9,"detail":"x","error":"no_channel"}`},
	} {
		b := c.e.Marshal()
		if string(b) != c.want {
			t.Errorf("%s, want %s", b, c.want)
		}
		got, err := ParseErrorBody(b)
		if diff := cmp.Diff(c.e, got); diff != "" || err != nil {
			t.Error(err, diff)
		}
	}
	if _, err := ParseErrorBody([]byte(`{}`)); KindOf(err) != Field {
		t.Error(err)
	}
	if e, err := ParseErrorBody([]byte(`{"error":"x","ack":"no","detail":7,"counter":4}`)); err != nil || e != (ErrorBody{Error: "x"}) {
		t.Error(e, err)
	}
}

func TestErrorText(t *testing.T) {
	err := badField("ext.resume", "missing")
	if got := err.Error(); got != "invalid field: ext.resume: missing" {
		t.Error(got)
	}
	if got := (&Error{Kind: UnknownType}).Code(); got != CodeDecode {
		t.Error(got)
	}
	for kind := VarintOverflow; kind <= BodyLimit; kind++ {
		if kind.String() == "" || kind.String() == "unknown error" {
			t.Errorf("kind %d has no text", kind)
		}
	}
}
