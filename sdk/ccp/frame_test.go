package ccp

import (
	"bytes"
	"errors"
	"math"
	"testing"
)

// W8: a length prefix of zero made the reference wait for ever.
func TestZeroLengthFrameDoesNotStall(t *testing.T) {
	for _, in := range [][]byte{{0}, {0x80, 0}, {0, 5, 0, 0, 0}} {
		if _, _, err := Decode(in); KindOf(err) != EmptyBody {
			t.Errorf("Decode(%x): %v", in, err)
		}
		if _, err := Size(in); KindOf(err) != EmptyBody {
			t.Errorf("Size(%x): %v", in, err)
		}
	}
}

// W8: lengths inside a complete body that point behind its end made the
// reference wait for ever.
func TestMalformedInnerLengthDoesNotStall(t *testing.T) {
	body := []byte{5, 0x80, 1, 0x80, 2, 3, 'a', 'b', 'c'}
	for cut := 1; cut < len(body); cut++ {
		in := append([]byte{byte(cut)}, body[:cut]...)
		if _, _, err := Decode(in); KindOf(err) != Truncated {
			t.Errorf("body %x: %v, want a final error", body[:cut], err)
		}
	}
}

// W7: what follows a frame is not looked at, whatever it is: bytes behind Auth
// belong to the record layer.
func TestDecodeLeavesFollowingBytesAlone(t *testing.T) {
	auth, err := Append(nil, Frame{Type: TypeAuth, Sequence: 2, Payload: []byte(`{"handshake":""}`)})
	if err != nil {
		t.Fatal(err)
	}
	in := append(bytes.Clone(auth), 0, 0xff, 0xff)
	if _, n, err := Decode(in); n != len(auth) || err != nil {
		t.Errorf("Decode: %d, %v", n, err)
	}
	f, _, _ := Decode(in)
	if cap(f.Payload) != len(f.Payload) {
		t.Error("an append to the payload would overwrite the bytes behind it")
	}
}

func TestDecodeMalformed(t *testing.T) {
	over := bytes.Repeat([]byte{0xff}, 10)
	frame := func(body ...byte) []byte { return append(AppendVarint(nil, uint64(len(body))), body...) }
	tooBig := append(AppendVarint(nil, MaxControl+7), 1, 0, 0)
	tooBig = append(AppendVarint(tooBig, MaxControl+1), bytes.Repeat([]byte{' '}, MaxControl+1)...)
	for _, c := range []struct {
		name string
		in   []byte
		want ErrorKind
	}{
		{"outer varint", over, VarintOverflow},
		{"frame limit before the body", AppendVarint(nil, MaxFrame+1), FrameLimit},
		{"type 0", frame(0, 0, 0, 0), UnknownType},
		{"type between the tables", frame(0x15, 0, 0, 0), UnknownType},
		{"type behind the tables", frame(0x25, 0, 0, 0), UnknownType},
		{"type alone", frame(5), Truncated},
		{"channel varint", frame(append([]byte{5}, over...)...), VarintOverflow},
		{"channel limit", frame(5, 0x80, 0x80, 0x80, 0x80, 0x10, 0, 0), ChannelLimit},
		{"sequence limit", frame(5, 0, 0x80, 0x80, 0x80, 0x80, 0x10, 0), SequenceLimit},
		{"payload limit", frame(5, 0, 0, 0x81, 0x80, 0x80, 0x08), PayloadLimit},
		{"payload longer than the body", frame(5, 0, 0, 2, 1), Truncated},
		{"empty control", frame(6, 0, 0, 0), Control},
		{"control with a byte order mark", frame(6, 0, 0, 5, 0xef, 0xbb, 0xbf, '{', '}'), Control},
		{"control limit", tooBig, ControlLimit},
		{"move is control", frame(0x24, 0, 0, 1, 'x'), Control},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, n, err := Decode(c.in); KindOf(err) != c.want || n != 0 {
				t.Errorf("Decode: %d, %v, want %v", n, err, c.want)
			}
		})
	}
}

func TestAppendLimits(t *testing.T) {
	for _, c := range []struct {
		name string
		t    Type
		n    int
		want ErrorKind
	}{
		{"unknown type", 0, 0, UnknownType},
		{"control", TypeAck, MaxControl + 1, ControlLimit},
		{"payload", TypeMsg, MaxFrame + 1, PayloadLimit},
		{"negative", TypeMsg, -1, PayloadLimit},
		{"body", TypeMsg, MaxFrame - 4, FrameLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			dst := []byte("kept")
			got, err := AppendHeader(dst, c.t, 0, 0, c.n)
			if KindOf(err) != c.want || string(got) != "kept" {
				t.Errorf("AppendHeader = %q, %v", got, err)
			}
			if _, err := EncodedLen(c.t, 0, 0, c.n); KindOf(err) != c.want {
				t.Errorf("EncodedLen: %v", err)
			}
		})
	}
	// 1 type + 1 channel + 1 sequence + 4 length are the least around so many bytes.
	largest := MaxFrame - 7
	head, err := AppendHeader(nil, TypeMsg, 0, 0, largest)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := Size(head); err != nil || n != len(head)+largest || n != MaxFrame+4 {
		t.Errorf("Size = %d, %v", n, err)
	}
	if head, _ = AppendHeader(nil, TypeMsg, MaxChannel, MaxSequence, 1<<20); len(head) > MaxHeader {
		t.Errorf("header of %d bytes", len(head))
	}
}

// Example of protocol-extensions.md section 4.
func TestExampleRecords(t *testing.T) {
	b, err := Append(nil, Frame{Type: TypeMsg, Channel: 9, Sequence: 1, Payload: make([]byte, 100_000)})
	if err != nil || len(b) != 100_009 || !bytes.HasPrefix(b, unhex(t, "a68d06 05 09 01 a08d06")) {
		t.Fatalf("frame of %d bytes, begins %x, %v", len(b), b[:9], err)
	}
	if rest := len(b) - MaxRecordFrame; rest != 34_490 {
		t.Errorf("second record holds %d", rest)
	}
	if n := (len(b) + 16384 - 16 - 1) / (16384 - 16); n != 7 {
		t.Errorf("%d records of at most 16384", n)
	}
}

func TestVarintWidths(t *testing.T) {
	for shift := range 64 {
		for _, v := range []uint64{1<<shift - 1, 1 << shift, math.MaxUint64 >> shift} {
			b := AppendVarint(nil, v)
			if got, n, err := Varint(append(b, 0xff)); got != v || n != len(b) || err != nil || VarintLen(v) != n {
				t.Errorf("%d: %x reads as %d, %d, %v", v, b, got, n, err)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"080509010401020304", "0e06ac0203097b2261636b223a337d", "00", "81808008", "08050102ff01aabbcc",
		"0805010203aabbccdd", "23200003 1f05a1a2a3a4a5a6a7a8000000000000003900010564" + "65762d62000000006869"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		size, sizeErr := Size(in)
		frame, n, err := Decode(in)
		switch {
		case err == nil:
			if n != size || n > len(in) || sizeErr != nil {
				t.Fatalf("n %d, Size %d, %v", n, size, sizeErr)
			}
		case errors.Is(err, ErrIncomplete):
			if sizeErr == nil && size <= len(in) {
				t.Fatal("a complete frame is called incomplete")
			}
			return
		default:
			if KindOf(err) == 0 || n != 0 {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		out, err := Append(nil, frame)
		if err != nil {
			t.Fatal(err)
		}
		again, m, err := Decode(out)
		if err != nil || m != len(out) || len(out) > n {
			t.Fatalf("again: %d of %d, %v", m, len(out), err)
		}
		if again.Type != frame.Type || again.Channel != frame.Channel || again.Sequence != frame.Sequence || !bytes.Equal(again.Payload, frame.Payload) {
			t.Fatal("not the same frame")
		}
		second, _ := Append(nil, again)
		if !bytes.Equal(out, second) {
			t.Fatal("encoding is not canonical")
		}
	})
}

func TestDecodeAllocs(t *testing.T) {
	opaque, _ := Append(nil, Frame{Type: TypeMsg, Channel: 300, Sequence: 7, Payload: make([]byte, 4096)})
	control, _ := Append(nil, Frame{Type: TypeAck, Channel: 300, Sequence: 7, Payload: []byte(`{"done":[[1,40],[42,42]],"log":"a1a2a3a4a5a6a7a8"}`)})
	buf := make([]byte, 0, 8192)
	for name, b := range map[string][]byte{"opaque": opaque, "control": control} {
		if n := testing.AllocsPerRun(100, func() {
			f, _, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if buf, err = Append(buf[:0], f); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := Decode(opaque[:100]); !errors.Is(err, ErrIncomplete) {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("incomplete: %v allocations", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, c := range []struct {
		name string
		f    Frame
	}{
		{"opaque-64", Frame{TypeMsg, 300, 70000, make([]byte, 64)}},
		{"opaque-64k", Frame{TypeMsg, 300, 70000, make([]byte, 64<<10)}},
		{"control", Frame{TypeAck, 300, 70000, []byte(`{"done":[[1,40],[42,42]],"log":"a1a2a3a4a5a6a7a8"}`)}},
	} {
		in, err := Append(nil, c.f)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				if _, _, err := Decode(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	f := Frame{TypeMsg, 300, 70000, make([]byte, 64)}
	buf := make([]byte, 0, 128)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = Append(buf[:0], f); err != nil {
			b.Fatal(err)
		}
	}
}
