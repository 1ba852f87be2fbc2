package ccp

import (
	"bytes"
	"testing"
)

// twice checks that what a parser read from in, written and read again, is
// written the same.
func twice(t *testing.T, in []byte, again func([]byte) ([]byte, error)) {
	t.Helper()
	out, err := again(in)
	if err != nil {
		if KindOf(err) == 0 {
			t.Fatalf("untyped error %v", err)
		}
		return
	}
	second, err := again(out)
	if err != nil || !bytes.Equal(out, second) {
		t.Fatalf("%s becomes %s, %v", out, second, err)
	}
}

func FuzzHello(f *testing.F) {
	h := sampleHello()
	h.PQ = nil // its 2,368 digits would only slow the mutations
	f.Add(h.Marshal())
	h.Identity, h.Proof = sampleIdentity(), &StaticProof{}
	f.Add(h.Marshal())
	f.Add([]byte(`{"pattern":"XK","handshake":"","supported_versions":[2]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		if h, err := ParseHello(in); err == nil {
			_, _ = NegotiateVersion(h)
			if err := Negotiate(h.Offer(), AllCapabilities).Check(); err != nil {
				t.Fatal(err)
			}
		}
		twice(t, in, func(b []byte) ([]byte, error) { h, err := ParseHello(b); return h.Marshal(), err })
	})
}

func FuzzConfirm(f *testing.F) {
	f.Add(sampleConfirm().Marshal())
	f.Add(Confirm{}.Marshal())
	f.Fuzz(func(t *testing.T, in []byte) {
		twice(t, in, func(b []byte) ([]byte, error) { c, err := ParseConfirm(b); return c.Marshal(), err })
	})
}

func FuzzServerEnvelopes(f *testing.F) {
	f.Add(sampleEstablished().Marshal())
	f.Add(Ext{Domain: "d", Session: "s", User: &User{ID: "u"}, Answer: NewAnswer(nil, AllCapabilities, ProofBinding)}.Marshal())
	f.Add(ServerAuth{Handshake: make([]byte, 48), ServerStatic: make([]byte, 32), SupportedVersions: []uint16{1}, ProtocolVersion: 1, Session: "s"}.Marshal())
	f.Add(Move{Reason: MoveDrain, Endpoints: []Endpoint{{"sse", "h", 443, "a=b"}}}.Marshal())
	f.Add(ErrorBody{Error: CodeFull, ID: MessageID{exampleLog, 7}, RetryMS: 3}.Marshal())
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, again := range []func([]byte) ([]byte, error){
			func(b []byte) ([]byte, error) { a, err := ParseEstablished(b); return a.Marshal(), err },
			func(b []byte) ([]byte, error) { e, err := ParseExt(b); return e.Marshal(), err },
			func(b []byte) ([]byte, error) { a, err := ParseServerAuth(b); return a.Marshal(), err },
			func(b []byte) ([]byte, error) { m, err := ParseMove(b); return m.Marshal(), err },
			func(b []byte) ([]byte, error) { e, err := ParseErrorBody(b); return e.Marshal(), err },
		} {
			twice(t, in, again)
		}
	})
}

func FuzzSendAck(f *testing.F) {
	f.Add([]byte(`{"done":[[1,40],[42,42]],"log":"a1a2a3a4a5a6a7a8","refused":[{"counter":41,"device":"dev-b","error":"full"}]}`))
	f.Add([]byte(`{"log":"a1a2a3a4a5a6a7a8","refused":[{"counter":1,"device":"\u0000\"","error":"é"}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		twice(t, in, func(b []byte) ([]byte, error) {
			a, err := ParseSendAck(b)
			if err != nil {
				return nil, err
			}
			return AppendSendAck(nil, a)
		})
	})
}

func FuzzCall(f *testing.F) {
	for _, s := range callSamples {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, again := range callParsers {
			twice(t, in, again)
		}
	})
}
