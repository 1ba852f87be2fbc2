package ccp

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var exampleLog = [8]byte{0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8}

// The examples of protocol-extensions.md section 5.
const (
	exampleSend    = "23 20 00 03 1f  05 a1a2a3a4a5a6a7a8 0000000000000039 00 01 05 6465762d62 00000000 6869"
	exampleDeliver = "32 21 00 0c 2e  05 04 0000000000002329 a1a2a3a4a5a6a7a8 0000000000000039 000001a0c4506c7b 05 6465762d61 03 752d31 6869"
	exampleDone    = "1d 22 00 04 19  0000000000002329 01 000000000000232b 000000000000232d"
)

func frameOf(t *testing.T, typ Type, sequence uint32, payload []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	b, err := Append(nil, Frame{Type: typ, Sequence: sequence, Payload: payload})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExampleSend(t *testing.T) {
	want := Send{Kind: TypeMsg, ID: MessageID{exampleLog, 57}, To: [][]byte{[]byte("dev-b")}, Body: []byte("hi")}
	p, err := AppendSend(nil, want)
	if got := frameOf(t, TypeSend, 3, p, err); !bytes.Equal(got, unhex(t, exampleSend)) {
		t.Errorf("frame %x", got)
	}
	f, _, err := Decode(unhex(t, exampleSend))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseSend(f.Payload)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if got.ID.String() != "a1a2a3a4a5a6a7a8-57" || got.CheckChannel(0) != nil || got.CheckChannel(1) == nil {
		t.Error(got.ID)
	}
	got.To = nil
	if got.CheckChannel(0) == nil || got.CheckChannel(1) != nil {
		t.Error("CheckChannel without recipients")
	}
}

func TestExampleDeliver(t *testing.T) {
	want := Deliver{
		Kind: TypeMsg, Flags: DeliverDirect, Position: 9001, ID: MessageID{exampleLog, 57}, Time: 0x1a0c4506c7b,
		Device: []byte("dev-a"), User: []byte("u-1"), Body: []byte("hi"),
	}
	p, err := AppendDeliver(nil, want)
	if got := frameOf(t, TypeDeliver, 12, p, err); !bytes.Equal(got, unhex(t, exampleDeliver)) {
		t.Errorf("frame %x", got)
	}
	if n := DeliverLen(5, 3, 2); n != len(p) {
		t.Errorf("DeliverLen %d, payload %d", n, len(p))
	}
	head, err := AppendDeliverHeader(nil, want)
	if err != nil || !bytes.Equal(append(head, want.Body...), p) {
		t.Errorf("header %x, %v", head, err)
	}
	got, err := ParseDeliver(p)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestExampleDone(t *testing.T) {
	want := Done{Cursor: 9001, Ranges: [][2]uint64{{9003, 9005}}}
	p, err := AppendDone(nil, want)
	if got := frameOf(t, TypeDone, 4, p, err); !bytes.Equal(got, unhex(t, exampleDone)) {
		t.Errorf("frame %x", got)
	}
	got, err := ParseDone(p)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestExampleDirectChannel(t *testing.T) {
	if a, b := DirectChannel("dev-a", "dev-b"), DirectChannel("dev-b", "dev-a"); a != 194006100 || b != a {
		t.Errorf("%d, %d, want 194006100", a, b)
	}
}

func TestSendMalformed(t *testing.T) {
	base := func(change func(b []byte) []byte) []byte {
		p, err := AppendSend(nil, Send{Kind: TypeMsg, ID: MessageID{exampleLog, 1}, To: [][]byte{[]byte("d")}, Body: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		return change(p)
	}
	for _, c := range []struct {
		name string
		in   []byte
		want ErrorKind
	}{
		{"empty", nil, Truncated},
		{"cut in the head", base(func(b []byte) []byte { return b[:18] }), Truncated},
		{"cut in a recipient", base(func(b []byte) []byte { return b[:20] }), Truncated},
		{"cut in the ttl", base(func(b []byte) []byte { return b[:24] }), Truncated},
		{"recipient longer than the rest", base(func(b []byte) []byte { b[19] = 200; return b }), Truncated},
		{"unknown flag", base(func(b []byte) []byte { b[17] = 4; return b }), Field},
		{"65 recipients", base(func(b []byte) []byte { b[18] = 65; return b }), Field},
		{"empty recipient", base(func(b []byte) []byte { b[19] = 0; return b }), Field},
		{"ack inside", base(func(b []byte) []byte { b[0] = byte(TypeAck); return b }), BadKind},
		{"send inside", base(func(b []byte) []byte { b[0] = byte(TypeSend); return b }), BadKind},
		{"counter 0", base(func(b []byte) []byte { clear(b[9:17]); return b }), BadID},
		{"control body that is no JSON", base(func(b []byte) []byte { b[0] = byte(TypeTyping); return b }), Control},
		{"body over the limit", base(func(b []byte) []byte { return append(b, make([]byte, MaxBody)...) }), BodyLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := ParseSend(c.in)
			if KindOf(err) != c.want {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if (c.want == BadKind || c.want == BodyLimit) && s.ID != (MessageID{exampleLog, 1}) {
				t.Error("the id of a refused message must be known")
			}
		})
	}
	codes := map[ErrorKind]string{BadKind: "bad_kind", BadID: "bad_id", BodyLimit: "too_large", Truncated: "decode", Version: "handshake"}
	for kind, code := range codes {
		if got := (&Error{Kind: kind}).Code(); got != code {
			t.Errorf("code of %v is %s", kind, got)
		}
	}
	ok := Send{Kind: TypeMsg, ID: MessageID{exampleLog, 1}}
	for name, bad := range map[string]Send{
		"flags":           {Kind: TypeMsg, ID: ok.ID, Flags: 8},
		"recipients":      {Kind: TypeMsg, ID: ok.ID, To: make([][]byte, 65)},
		"empty recipient": {Kind: TypeMsg, ID: ok.ID, To: [][]byte{{}}},
		"long recipient":  {Kind: TypeMsg, ID: ok.ID, To: [][]byte{make([]byte, 256)}},
		"kind":            {Kind: TypeHello, ID: ok.ID},
	} {
		if got, err := AppendSend([]byte("kept"), bad); err == nil || string(got) != "kept" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestDeliverMalformed(t *testing.T) {
	base, err := AppendDeliver(nil, Deliver{Kind: TypeMsg, Position: 7, Device: []byte("d"), User: []byte("u")})
	if err != nil {
		t.Fatal(err)
	}
	for cut := range base {
		if _, err := ParseDeliver(base[:cut]); KindOf(err) != Truncated {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	for _, c := range []struct {
		at   int
		to   byte
		want ErrorKind
	}{{0, byte(TypeHello), BadKind}, {1, 8, Field}, {0, byte(TypePresence), Control}} {
		b := bytes.Clone(base)
		b[c.at] = c.to
		d, err := ParseDeliver(b)
		if KindOf(err) != c.want || d.Position != 7 {
			t.Errorf("byte %d = %d: position %d, %v", c.at, c.to, d.Position, err)
		}
	}
	if _, err := AppendDeliver(nil, Deliver{Kind: TypeMsg, User: make([]byte, 256)}); KindOf(err) != Field {
		t.Error(err)
	}
	// The longest names still fit beside the largest body.
	n, err := EncodedLen(TypeDeliver, MaxChannel, MaxSequence, DeliverLen(MaxName, MaxName, MaxBody))
	if err != nil || n > MaxFrame+4 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestDoneMalformed(t *testing.T) {
	one, _ := AppendDone(nil, Done{Cursor: 1, Ranges: [][2]uint64{{2, 3}}})
	for cut := range one {
		if _, err := ParseDone(one[:cut]); KindOf(err) != Truncated {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	if _, err := ParseDone(append(bytes.Clone(one), 0)); KindOf(err) != Field {
		t.Errorf("a byte more: %v", err)
	}
	many := append(binary.BigEndian.AppendUint64(nil, 1), 17)
	if _, err := ParseDone(append(many, make([]byte, 17*16)...)); KindOf(err) != Field {
		t.Errorf("17 ranges: %v", err)
	}
	down := bytes.Clone(one)
	down[16] = 9
	if _, err := ParseDone(down); KindOf(err) != Field {
		t.Errorf("from above to: %v", err)
	}
	for _, bad := range []Done{{Ranges: [][2]uint64{{2, 1}}}, {Ranges: make([][2]uint64, 17)}} {
		if _, err := AppendDone(nil, bad); KindOf(err) != Field {
			t.Error(err)
		}
	}
}

func TestSendAck(t *testing.T) {
	want := SendAck{Log: exampleLog, Done: [][2]uint64{{1, 40}, {42, 42}}, Refused: []Refusal{{41, []byte("dev-b"), []byte(CodeFull)}}}
	b, err := AppendSendAck(nil, want)
	const text = `{"done":[[1,40],[42,42]],"log":"a1a2a3a4a5a6a7a8","refused":[{"counter":41,"device":"dev-b","error":"full"}]}`
	if err != nil || string(b) != text {
		t.Fatalf("%s, %v", b, err)
	}
	got, err := ParseSendAck(b)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	escaped, err := ParseSendAck([]byte(` {"refused" : [ {"error":"f\u0075ll","device":"dev-b","counter":41} ] , "log":"A1A2A3A4A5A6A7A8","done":[ [1 , 40],[42,42] ]} `))
	if diff := cmp.Diff(want, escaped); diff != "" || err != nil {
		t.Error(err, diff)
	}
	for _, in := range []string{
		`[]`, `{}`, `{"ack":3}`, `{"log":"a1"}`, `{"log":7}`, `{"log":"a1a2a3a4a5a6a7a8","done":{}}`, `{"log":"a1a2a3a4a5a6a7a8","done":[1]}`,
		`{"log":"a1a2a3a4a5a6a7a8","done":[[1]]}`, `{"log":"a1a2a3a4a5a6a7a8","done":[[1,2,3]]}`, `{"log":"a1a2a3a4a5a6a7a8","done":[[2,1]]}`,
		`{"log":"a1a2a3a4a5a6a7a8","done":[[1,1.0]]}`, `{"log":"a1a2a3a4a5a6a7a8","done":[[-1,1]]}`, `{"log":"a1a2a3a4a5a6a7a8","done":[["1","2"]]}`,
		`{"log":"a1a2a3a4a5a6a7a8","refused":[{}]}`, `{"log":"a1a2a3a4a5a6a7a8","refused":[7]}`, `{"log":"a1a2a3a4a5a6a7a8","refused":{}}`,
		`{"log":"a1a2a3a4a5a6a7a8","done":[` + strings.Repeat("[1,1],", MaxAckRanges) + `[1,1]]}`,
	} {
		if _, err := ParseSendAck([]byte(in)); KindOf(err) != Field {
			t.Errorf("ParseSendAck(%.60s): %v", in, err)
		}
	}
	for _, bad := range []SendAck{{Done: make([][2]uint64, MaxAckRanges+1)}, {Refused: make([]Refusal, MaxRefusals+1)}, {Done: [][2]uint64{{2, 1}}}} {
		if b, err := AppendSendAck([]byte("kept"), bad); err == nil || string(b) != "kept" {
			t.Errorf("%q, %v", b, err)
		}
	}
	if got := string(AppendReply(nil, 3, Text("group_id", "g"), Member{Key: "none"})); got != `{"ack":3,"group_id":"g"}` {
		t.Error(got)
	}
}

func TestMove(t *testing.T) {
	want := Move{Reason: MoveDrain, WithinMS: 30000, Endpoints: []Endpoint{
		{Transport: "sse", Host: "relay.example", Port: 443, Params: "ck=sid&path=%2Fassets%2F9f3c61d2"},
		{Transport: "http2", Host: "2001:db8::1", Port: 8443},
	}}
	b := want.Marshal()
	got, err := ParseMove(b)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if c, err := CanonicalJSON(b); err != nil || !bytes.Equal(b, c) {
		t.Errorf("not sorted: %s", b)
	}
	values := want.Endpoints[0].Values()
	if diff := cmp.Diff(map[string]string{"ck": "sid", "path": "/assets/9f3c61d2"}, values); diff != "" {
		t.Error(diff)
	}
	if ParamsOf(values) != want.Endpoints[0].Params {
		t.Error(ParamsOf(values))
	}
	for _, in := range []string{
		`{}`, `{"reason":7}`, `{"reason":"x","endpoints":{}}`, `{"reason":"x","endpoints":[1]}`,
		`{"reason":"x","endpoints":[{"transport":"SSE","host":"h","port":1}]}`, `{"reason":"x","endpoints":[{"transport":"sse","host":"","port":1}]}`,
		`{"reason":"x","endpoints":[{"transport":"sse","host":"h/x","port":1}]}`, `{"reason":"x","endpoints":[{"transport":"sse","host":"h","port":0}]}`,
		`{"reason":"x","endpoints":[{"transport":"sse","host":"h","port":65536}]}`, `{"reason":"x","endpoints":[{"transport":"sse","host":"h","port":1,"params":"%zz"}]}`,
		`{"reason":"x","endpoints":[{"transport":"sse","host":"h","port":1,"params":"a b"}]}`, `{"reason":"x","within_ms":-1}`,
	} {
		if _, err := ParseMove([]byte(in)); KindOf(err) != Field {
			t.Errorf("ParseMove(%s): %v", in, err)
		}
	}
}

func TestMessageAllocs(t *testing.T) {
	to := [][]byte{[]byte("dev-b"), []byte("dev-c"), []byte("dev-d")}
	send, _ := AppendSend(nil, Send{Kind: TypeMsg, ID: MessageID{exampleLog, 57}, To: to, Body: make([]byte, 300)})
	deliver, _ := AppendDeliver(nil, Deliver{Kind: TypeMsg, Position: 1, Device: to[0], User: to[1], Body: make([]byte, 300)})
	done, _ := AppendDone(nil, Done{Cursor: 9, Ranges: [][2]uint64{{11, 12}, {14, 15}}})
	ack, _ := AppendSendAck(nil, SendAck{Log: exampleLog, Done: [][2]uint64{{1, 40}}, Refused: []Refusal{{41, to[0], []byte("full")}}})
	buf := make([]byte, 0, 4096)
	var (
		s = Send{To: make([][]byte, 0, MaxTo)}
		d Deliver
		n = Done{Ranges: make([][2]uint64, 0, MaxDoneRanges)}
		a = SendAck{Done: make([][2]uint64, 0, 8), Refused: make([]Refusal, 0, 8)}
		w Window
		r = make([][2]uint64, 0, 8)
	)
	var counter uint64
	for name, f := range map[string]func() error{
		"Send.Parse":          func() error { return s.Parse(send) },
		"AppendSend":          func() (err error) { buf, err = AppendSend(buf[:0], s); return err },
		"Deliver.Parse":       func() error { return d.Parse(deliver) },
		"AppendDeliver":       func() (err error) { buf, err = AppendDeliver(buf[:0], d); return err },
		"AppendDeliverHeader": func() (err error) { buf, err = AppendDeliverHeader(buf[:0], d); return err },
		"Done.Parse":          func() error { return n.Parse(done) },
		"AppendDone":          func() (err error) { buf, err = AppendDone(buf[:0], n); return err },
		"SendAck.Parse":       func() error { return a.Parse(ack) },
		"AppendSendAck":       func() (err error) { buf, err = AppendSendAck(buf[:0], a); return err },
		"AppendReply":         func() error { buf = AppendReply(buf[:0], 77); return nil },
		"Window.Mark":         func() error { counter++; _, err := w.Mark(counter); return err },
		"Window.AppendRanges": func() error { r = w.AppendRanges(r[:0]); return nil },
	} {
		// Parse first, so that what the appenders write is whole.
		for _, p := range []error{s.Parse(send), d.Parse(deliver), n.Parse(done), a.Parse(ack)} {
			if p != nil {
				t.Fatal(p)
			}
		}
		if got := testing.AllocsPerRun(50, func() {
			if err := f(); err != nil {
				t.Fatal(err)
			}
		}); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}

func FuzzSend(f *testing.F) {
	f.Add(unhex(f, exampleSend)[5:])
	f.Add([]byte{5, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := ParseSend(in)
		if err != nil {
			if KindOf(err) == 0 {
				t.Fatal(err)
			}
			return
		}
		if out, err := AppendSend(nil, s); err != nil || !bytes.Equal(out, in) {
			t.Fatalf("%x becomes %x, %v", in, out, err)
		}
	})
}

func FuzzDeliver(f *testing.F) {
	f.Add(unhex(f, exampleDeliver)[5:])
	f.Fuzz(func(t *testing.T, in []byte) {
		d, err := ParseDeliver(in)
		if err != nil {
			if KindOf(err) == 0 {
				t.Fatal(err)
			}
			return
		}
		if out, err := AppendDeliver(nil, d); err != nil || !bytes.Equal(out, in) {
			t.Fatalf("%x becomes %x, %v", in, out, err)
		}
	})
}

func FuzzDone(f *testing.F) {
	f.Add(unhex(f, exampleDone)[5:])
	f.Add(make([]byte, 9))
	f.Fuzz(func(t *testing.T, in []byte) {
		d, err := ParseDone(in)
		if err != nil {
			if KindOf(err) == 0 {
				t.Fatal(err)
			}
			return
		}
		if out, err := AppendDone(nil, d); err != nil || !bytes.Equal(out, in) {
			t.Fatalf("%x becomes %x, %v", in, out, err)
		}
	})
}

func BenchmarkMessages(b *testing.B) {
	send := Send{Kind: TypeMsg, ID: MessageID{exampleLog, 57}, To: [][]byte{[]byte("dev-b")}, Body: make([]byte, 300)}
	payload, err := AppendSend(nil, send)
	if err != nil {
		b.Fatal(err)
	}
	ack, err := AppendSendAck(nil, SendAck{Log: exampleLog, Done: [][2]uint64{{1, 40}, {42, 42}}})
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	parsed := Send{To: make([][]byte, 0, MaxTo)}
	var a SendAck
	for _, c := range []struct {
		name string
		f    func() error
	}{
		{"Send.Parse", func() error { return parsed.Parse(payload) }},
		{"AppendSend", func() (err error) { buf, err = AppendSend(buf[:0], send); return err }},
		{"SendAck.Parse", func() error { return a.Parse(ack) }},
		{"AppendSendAck", func() (err error) { buf, err = AppendSendAck(buf[:0], a); return err }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := c.f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestGroupPayloads(t *testing.T) {
	j, err := ParseJoin([]byte(`{"relay":"yes","members":["a",7,"b"],"group_id":null}`))
	if diff := cmp.Diff(Join{Members: []string{"a", "b"}}, j); diff != "" || err != nil {
		t.Error(err, diff)
	}
	g, err := ParseGroupCreate([]byte(`{"group_id":"g","members":["a"],"roles":{"a":"admin","b":"king","c":7}}`))
	want := GroupCreate{GroupID: "g", Relay: true, Members: []string{"a"}, Roles: map[string]string{"a": RoleAdmin, "b": RoleMember, "c": RoleMember}}
	if diff := cmp.Diff(want, g); diff != "" || err != nil {
		t.Error(err, diff)
	}
	i, err := ParseGroupInvite([]byte(`{"group_id":"g","device":"d","role":"owner"}`))
	if diff := cmp.Diff(GroupInvite{"g", "d", RoleAdmin}, i); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if _, err := ParseGroupInvite([]byte(`{"group_id":"g"}`)); KindOf(err) != Field {
		t.Error(err)
	}
	for in, want := range map[string]string{`{}`: StateOnline, `{"state":7}`: StateOnline, `{"state":"away"}`: "away"} {
		if got, err := ParsePresence([]byte(in)); got != want || err != nil {
			t.Errorf("ParsePresence(%s) = %s, %v", in, got, err)
		}
	}
	if _, err := ParsePresence([]byte(`{"state":"` + strings.Repeat("x", 65) + `"}`)); KindOf(err) != Field {
		t.Error(err)
	}
	if _, err := ParseJoin([]byte(`[]`)); KindOf(err) != Field {
		t.Error(err)
	}
	many := `{"members":[` + strings.Repeat(`"a",`, MaxMembers) + `"a"]}`
	if _, err := ParseJoin([]byte(many)); KindOf(err) != Field {
		t.Error(err)
	}
}

func TestLegacyLog(t *testing.T) {
	a, b := LegacyLog("session-1"), LegacyLog("session-2")
	if a == b || slices.Equal(a[:], make([]byte, 8)) {
		t.Error(a, b)
	}
}
