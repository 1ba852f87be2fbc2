package noise

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func newPair() (*Sealer, *Opener) {
	return NewSealer(NewCipher(fill32(0x2a))), NewOpener(NewCipher(fill32(0x2a)))
}

// drain opens all whole records at the head of stream.
func drain(o *Opener, stream []byte) (plain, rest []byte, err error) {
	for {
		p, n, err := o.Next(stream)
		if err != nil {
			return plain, stream, err
		}
		plain, stream = append(plain, p...), stream[n:]
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

// Section 4's example: a frame of 100,009 bytes.
func TestWorkedSplit(t *testing.T) {
	for _, test := range []struct {
		max  int
		want []int // plaintext lengths
	}{
		{MaxRecord, []int{65519, 34490}},
		{16384, []int{16368, 16368, 16368, 16368, 16368, 16368, 1801}},
		{0, []int{16366, 16366, 16366, 16366, 16366, 16366, 1813}},
	} {
		s, o := newPair()
		frame := pattern(100_009)
		stream, err := s.AppendRecords(nil, frame, test.max)
		if err != nil {
			t.Fatal(err)
		}
		if len(stream) != SealedSize(len(frame), test.max) {
			t.Errorf("SealedSize %d, got %d", SealedSize(len(frame), test.max), len(stream))
		}
		var lengths []int
		var plain []byte
		for len(stream) > 0 {
			p, n, err := o.Next(stream)
			if err != nil {
				t.Fatal(err)
			}
			if test.max == 0 && n > 16384 {
				t.Errorf("a default record of %d bytes", n)
			}
			lengths, plain, stream = append(lengths, len(p)), append(plain, p...), stream[n:]
		}
		if !slices.Equal(lengths, test.want) || !bytes.Equal(plain, frame) {
			t.Errorf("max %d: split %v", test.max, lengths)
		}
	}
}

// Whatever is written, in whatever sizes, and however the stream is cut, the
// reader gets the same bytes in the same order.
func TestStreamProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, o := newPair()
		start := rapid.SampledFrom([]uint64{0, 1, RekeyInterval - 2, 5*RekeyInterval - 1, MaxCounter - 300}).Draw(t, "counter")
		s.cipher.counter, o.cipher.counter = start, start
		var want, stream []byte
		for range rapid.IntRange(1, 6).Draw(t, "writes") {
			p := pattern(rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 70_000)).Draw(t, "size"))
			max := rapid.OneOf(rapid.Just(0), rapid.IntRange(2000, MaxRecord)).Draw(t, "max")
			before := len(stream)
			var err error
			if stream, err = s.AppendRecords(stream, p, max); err != nil {
				t.Fatal(err)
			}
			if len(stream)-before != SealedSize(len(p), max) {
				t.Fatalf("SealedSize(%d, %d) = %d, got %d", len(p), max, SealedSize(len(p), max), len(stream)-before)
			}
			want = append(want, p...)
		}
		var got, pending []byte
		for len(stream) > 0 {
			n := rapid.IntRange(1, len(stream)).Draw(t, "chunk")
			pending, stream = append(pending, stream[:n]...), stream[n:]
			p, rest, err := drain(o, pending)
			if err != ErrIncomplete {
				t.Fatal(err)
			}
			got, pending = append(got, p...), slices.Clone(rest)
		}
		if !bytes.Equal(got, want) || len(pending) != 0 || s.Counter() != o.Counter() {
			t.Fatalf("%d bytes in, %d out, %d left", len(want), len(got), len(pending))
		}
	})
}

// Reordered, repeated, dropped, or altered records never give a byte that was
// not next in the stream, and the reader stops for good.
func TestManipulationProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, o := newPair()
		records := make([][]byte, rapid.IntRange(2, 6).Draw(t, "records"))
		for i := range records {
			records[i], _ = s.AppendRecord(nil, pattern(rapid.IntRange(0, 300).Draw(t, "size")+i))
		}
		at := rapid.IntRange(0, len(records)-2).Draw(t, "at")
		good := at
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			records[at], records[at+1] = records[at+1], records[at]
		case 1:
			records = slices.Insert(records, at+1, slices.Clone(records[at]))
			good++
		case 2:
			records = slices.Delete(records, at, at+1)
		case 3: // one bit of the ciphertext
			r := records[at]
			head, _, _ := RecordSize(r)
			bit := rapid.IntRange(head*8, len(r)*8-1).Draw(t, "bit")
			r[bit/8] ^= 1 << (bit % 8)
		case 4: // a record of another key, as a forger would make it
			forger := NewSealer(NewCipher(fill32(1)))
			records[at], _ = forger.AppendRecord(nil, []byte("forged"))
		}
		stream := bytes.Join(records, nil)
		opened := 0
		for {
			p, n, err := o.Next(stream)
			if err != nil {
				if !errors.Is(err, ErrDecrypt) {
					t.Fatal(err)
				}
				break
			}
			if len(p) < opened {
				t.Fatalf("record %d has %d bytes", opened, len(p))
			}
			opened, stream = opened+1, stream[n:]
		}
		if opened != good {
			t.Fatalf("%d records opened, want %d", opened, good)
		}
		if _, _, err := o.Next(records[len(records)-1]); !errors.Is(err, ErrDecrypt) {
			t.Fatalf("after a failure: %v", err)
		}
	})
}

// A stream cut at any byte gives exactly the whole records before the cut.
func TestCutAtEveryByte(t *testing.T) {
	s, _ := newPair()
	var stream []byte
	var ends []int
	for _, n := range []int{0, 1, 111, 112, 113, 500} {
		stream, _ = s.AppendRecord(stream, pattern(n))
		ends = append(ends, len(stream))
	}
	for cut := 0; cut <= len(stream); cut++ {
		_, o := newPair()
		part := slices.Clone(stream[:cut])
		_, rest, err := drain(o, part)
		if err != ErrIncomplete {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		whole := 0
		for whole < len(ends) && ends[whole] <= cut {
			whole++
		}
		if o.Counter() != uint64(whole) || !bytes.Equal(rest, stream[cut-len(rest):cut]) {
			t.Fatalf("cut at %d: %d records, want %d; or the rest was touched", cut, o.Counter(), whole)
		}
		p, _, err := drain(o, slices.Concat(rest, stream[cut:]))
		if err != ErrIncomplete || o.Counter() != uint64(len(ends)) {
			t.Fatalf("continued at %d: %d bytes, %v", cut, len(p), err)
		}
	}
}

// W8: n is judged from its varint alone, before any byte of the record arrives,
// and a length that can never be right does not wait for more.
func TestW8RecordLength(t *testing.T) {
	for _, test := range []struct {
		in   string
		head int
		n    int
		err  error
	}{
		{"", 0, 0, ErrIncomplete},
		{"80", 0, 0, ErrIncomplete},
		{"00", 0, 0, ErrRecord},
		{"0f", 0, 0, ErrRecord},
		{"10", 1, 16, nil},
		{"9000", 2, 16, nil}, // overlong, as CCP-1's varint allows
		{"ffff03", 3, 65535, nil},
		{"808004", 0, 0, ErrRecord},
		{"8080", 0, 0, ErrIncomplete},
		{"ffff04", 0, 0, ErrRecord},
		{"ffffff", 0, 0, ErrRecord}, // over the limit whatever follows
		{"80808080808080808000", 0, 0, ErrRecord},
		{"90808080808080808000", 10, 16, nil},
		{"9080808080808080807e", 10, 16, nil}, // surplus bits of byte 10 are dropped
		{"90808080808080808080", 0, 0, ErrRecord},
		{"80808080808080808080", 0, 0, ErrRecord},
	} {
		head, n, err := RecordSize(unhex(t, test.in))
		if head != test.head || n != test.n || !errors.Is(err, test.err) {
			t.Errorf("%s: %d, %d, %v", test.in, head, n, err)
		}
	}
	_, o := newPair()
	if _, _, err := o.Next([]byte{0xff, 0xff, 0x04}); !errors.Is(err, ErrRecord) {
		t.Errorf("65,536 and more: %v", err)
	}
	if _, _, err := o.Next([]byte{0x10}); !errors.Is(err, ErrRecord) {
		t.Errorf("after a failure: %v", err)
	}
}

// W8: the largest record is 65,519 bytes of plaintext; a longer frame is split
// and never kills the connection, and an empty record is a keep-alive.
func TestW8RecordBounds(t *testing.T) {
	s, o := newPair()
	if out, err := s.AppendRecord([]byte("x"), make([]byte, MaxPlaintext+1)); !errors.Is(err, ErrRecord) || string(out) != "x" {
		t.Errorf("one record for %d bytes: %v", MaxPlaintext+1, err)
	}
	for _, max := range []int{-1, 1, MinRecord, MaxRecord + 1} {
		if _, err := s.AppendRecords(nil, nil, max); !errors.Is(err, ErrRecord) || SealedSize(1, max) != 0 {
			t.Errorf("maxRecord %d: %v", max, err)
		}
	}
	if s.Counter() != 0 {
		t.Error("a refused call took a counter")
	}
	stream, _ := s.AppendRecord(nil, make([]byte, MaxPlaintext))
	if !bytes.HasPrefix(stream, []byte{0xff, 0xff, 0x03}) {
		t.Errorf("head % x", stream[:3])
	}
	stream, _ = s.AppendRecords(stream, nil, 0)
	if p, n, err := o.Next(stream); err != nil || len(p) != MaxPlaintext || n != MaxRecord+3 {
		t.Fatalf("%d, %d, %v", len(p), n, err)
	} else if p, n, err = o.Next(stream[n:]); err != nil || len(p) != 0 || n != 17 {
		t.Errorf("keep-alive: %d, %d, %v", len(p), n, err)
	}
	stream, err := s.AppendRecords(nil, []byte("ab"), MinRecord+1)
	if err != nil || len(stream) != 2*18 {
		t.Errorf("smallest records: %d bytes, %v", len(stream), err)
	}
}

// AppendNext leaves the input readable, also when it does not decrypt.
func TestAppendNextKeepsInput(t *testing.T) {
	s, o := newPair()
	in, _ := s.AppendRecord(nil, []byte("text"))
	copyOf := slices.Clone(in)
	out, n, err := o.AppendNext([]byte("> "), in)
	if err != nil || n != len(in) || string(out) != "> text" || !bytes.Equal(in, copyOf) {
		t.Fatalf("%q, %d, %v", out, n, err)
	}
	if out, _, err = o.AppendNext(out, in[:5]); err != ErrIncomplete || string(out) != "> text" {
		t.Errorf("%q, %v", out, err)
	}
	clearFrame := append([]byte{20}, bytes.Repeat([]byte{5}, 20)...)
	copyOf = slices.Clone(clearFrame)
	if out, _, err = o.AppendNext(out, clearFrame); !errors.Is(err, ErrDecrypt) || string(out) != "> text" {
		t.Errorf("%q, %v", out, err)
	}
	if !bytes.Equal(clearFrame, copyOf) {
		t.Error("a failure touched the input")
	}
	if _, _, err = o.Next(in); !errors.Is(err, ErrDecrypt) {
		t.Errorf("after a failure: %v", err)
	}
}

// The plaintext that Next gives cannot grow over the record behind it.
func TestNextIsCapped(t *testing.T) {
	s, o := newPair()
	stream, _ := s.AppendRecord(nil, []byte("first"))
	stream, _ = s.AppendRecord(stream, []byte("second"))
	p, n, err := o.Next(stream)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(p, make([]byte, 64)...)
	if p, _, err := o.Next(stream[n:]); err != nil || string(p) != "second" {
		t.Errorf("%q, %v", p, err)
	}
}

func TestRecordsDoNotAllocate(t *testing.T) {
	for _, size := range []int{0, 256, 1024, 50_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s, o := newPair()
			plain := pattern(size)
			buf := make([]byte, 0, SealedSize(size, 0))
			allocs := testing.AllocsPerRun(500, func() {
				stream, err := s.AppendRecords(buf[:0], plain, 0)
				if err != nil {
					t.Fatal(err)
				}
				for len(stream) > 0 {
					_, n, err := o.Next(stream)
					if err != nil {
						t.Fatal(err)
					}
					stream = stream[n:]
				}
			})
			if allocs != 0 {
				t.Errorf("%v allocations", allocs)
			}
		})
	}
}

func FuzzRecordSize(f *testing.F) {
	for _, s := range []string{"", "\x10", "\x90\x00", "\xff\xff\x03", "\xff\xff\xff\x7f", "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		head, n, err := RecordSize(in)
		if err != nil {
			if head != 0 || n != 0 {
				t.Fatalf("%d, %d with %v", head, n, err)
			}
			if err == ErrIncomplete && len(in) >= maxVarint {
				t.Fatal("waits for ever")
			}
			return
		}
		if n < MinRecord || n > MaxRecord || head > len(in) || in[head-1] >= 0x80 {
			t.Fatalf("head %d, n %d", head, n)
		}
		if canonical := binary.AppendUvarint(nil, uint64(n)); head == varintLen(n) && !bytes.Equal(canonical, in[:head]) {
			t.Fatalf("% x is not % x", in[:head], canonical)
		}
	})
}

// The opener holds against any stream: it opens what the sealer wrote and stops
// at the first difference.
func FuzzOpener(f *testing.F) {
	s, _ := newPair()
	stream, _ := s.AppendRecord(nil, []byte("one"))
	stream, _ = s.AppendRecords(stream, pattern(100), 60)
	f.Add(stream, uint8(3))
	f.Add([]byte{0xff, 0xff, 0x03, 1, 2}, uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		_, o := newPair()
		again, _ := newPair()
		var pending, rebuilt []byte
		for chunk := range slices.Chunk(in, int(step)+1) {
			pending = append(pending, chunk...)
			for {
				p, n, err := o.Next(pending)
				if err == ErrIncomplete {
					break
				}
				if err != nil {
					return
				}
				head, _, _ := RecordSize(in[len(rebuilt):])
				rebuilt = append(rebuilt, in[len(rebuilt):len(rebuilt)+head]...)
				sealed, err := again.cipher.AppendSeal(nil, p)
				if err != nil {
					t.Fatal(err)
				}
				rebuilt = append(rebuilt, sealed...)
				pending = pending[n:]
				if !bytes.Equal(rebuilt, in[:len(rebuilt)]) {
					t.Fatal("sealed again it differs")
				}
			}
		}
	})
}

// No message makes a handshake panic, and none but the honest one is accepted.
func FuzzReadMessage(f *testing.F) {
	client, server := example(f, XK, false)
	m1, _ := client.WriteMessage(nil, nil)
	_, _ = server.ReadMessage(nil, m1)
	m2, _ := server.WriteMessage(nil, []byte("{}"))
	_, _ = client.ReadMessage(nil, m2)
	m3, _ := client.WriteMessage(nil, nil)
	ik, _ := example(f, IK, false)
	i1, _ := ik.WriteMessage(nil, nil)
	f.Add(m1, m3, false)
	f.Add(i1, m3, true)
	f.Fuzz(func(t *testing.T, first, third []byte, two bool) {
		p := XK
		if two {
			p = IK
		}
		_, server := example(t, p, false)
		payload, err := server.ReadMessage(nil, first)
		if err != nil {
			return
		}
		if len(payload)+p.MessageSize(0) != len(first) {
			t.Fatal("payload length")
		}
		if _, err := server.WriteMessage(nil, nil); err != nil {
			return // an ephemeral of low order
		}
		if p == XK {
			if _, err := server.ReadMessage(nil, third); err != nil {
				return
			}
		}
		if _, _, err := server.Split(); err != nil {
			t.Fatal(err)
		}
	})
}

// Every accepted ek is the canonical encoding of its key.
func FuzzPQServer(f *testing.F) {
	ek, _, _ := PQClient(bytes.NewReader(counting(64)))
	f.Add(ek)
	f.Add(ek[:100])
	f.Fuzz(func(t *testing.T, in []byte) {
		ct, _, err := PQServer(in, bytes.NewReader(counting(32)))
		if err != nil {
			return
		}
		if len(ct) != PQCiphertextSize {
			t.Fatal("ct length")
		}
		for i := 0; i < PQKeySize-32; i += 3 {
			a := int(in[i]) | int(in[i+1]&15)<<8
			b := int(in[i+1]>>4) | int(in[i+2])<<4
			if a >= 3329 || b >= 3329 {
				t.Fatal("a coefficient over q was accepted")
			}
		}
	})
}
