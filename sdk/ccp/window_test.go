package ccp

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mark(t *testing.T, w *Window, counters ...uint64) {
	t.Helper()
	for _, c := range counters {
		if _, err := w.Mark(c); err != nil {
			t.Fatalf("Mark(%d): %v", c, err)
		}
	}
}

func TestWindowExample(t *testing.T) {
	var w Window
	for c := range uint64(40) {
		mark(t, &w, c+1)
	}
	mark(t, &w, 42)
	if diff := cmp.Diff([][2]uint64{{1, 40}, {42, 42}}, w.Ranges()); diff != "" {
		t.Error(diff)
	}
	if w.Done(41) || !w.Done(40) || w.Done(0) || w.Done(43) || w.High() != 42 || w.Count() != 41 {
		t.Error("Done, High or Count")
	}
}

func TestWindowEdges(t *testing.T) {
	var w Window
	if w.Ranges() != nil {
		t.Error("ranges of nothing")
	}
	for _, bad := range []uint64{0, WindowSize + 1, math.MaxUint64} {
		if fresh, err := w.Mark(bad); fresh || KindOf(err) != BadID {
			t.Errorf("Mark(%d) = %v, %v", bad, fresh, err)
		}
	}
	mark(t, &w, WindowSize) // the farthest allowed
	if diff := cmp.Diff([][2]uint64{{WindowSize, WindowSize}}, w.Ranges()); diff != "" {
		t.Error(diff)
	}
	mark(t, &w, 1)
	mark(t, &w, WindowSize+1) // 1 falls out below
	if fresh, err := w.Mark(1); fresh || err != nil {
		t.Errorf("below the window: %v, %v", fresh, err)
	}
	if diff := cmp.Diff([][2]uint64{{1, 1}, {WindowSize, WindowSize + 1}}, w.Ranges()); diff != "" {
		t.Error(diff)
	}
	mark(t, &w, 2*WindowSize+1)
	if diff := cmp.Diff([][2]uint64{{1, WindowSize + 1}, {2*WindowSize + 1, 2*WindowSize + 1}}, w.Ranges()); diff != "" {
		t.Error(diff)
	}
	top := Window{high: math.MaxUint64 - 1}
	top.set(top.high)
	mark(t, &top, math.MaxUint64)
	if got := top.Ranges(); got[len(got)-1] != [2]uint64{math.MaxUint64 - 1, math.MaxUint64} {
		t.Error(got)
	}
	if err := top.Check(math.MaxUint64); err != nil {
		t.Error(err)
	}
}

// The window agrees with a plain set, as long as both remember.
func TestWindowAgreesWithASet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var w Window
	set := map[uint64]bool{}
	for range 50_000 {
		c := uint64(1)
		if high := w.High(); rng.IntN(4) == 0 {
			c = high + 1 + rng.Uint64N(40)
		} else if high > 0 {
			c = high - min(high-1, rng.Uint64N(WindowSize+100))
		}
		below := c+WindowSize <= w.High()
		fresh, err := w.Mark(c)
		if err != nil || fresh != (!set[c] && !below) {
			t.Fatalf("Mark(%d) = %v, %v at %d", c, fresh, err, w.High())
		}
		set[c] = true
		if !w.Done(c) {
			t.Fatalf("%d is not done", c)
		}
	}
	for c := w.High() - WindowSize + 1; c <= w.High(); c++ {
		if w.Done(c) != set[c] {
			t.Errorf("Done(%d) = %v", c, w.Done(c))
		}
	}
	var last uint64
	for i, r := range w.Ranges() {
		if i > 0 && r[0] <= last+1 || r[0] > r[1] {
			t.Fatalf("ranges %v", w.Ranges())
		}
		last = r[1]
	}
	if last != w.High() || len(w.Ranges()) > MaxWindowRanges {
		t.Error(last, len(w.Ranges()))
	}
}

func TestWindowManyRanges(t *testing.T) {
	var w Window
	for c := uint64(WindowSize + 2); c <= 2*WindowSize+2; c += 2 {
		w.high = max(w.high, c-1)
		mark(t, &w, c)
	}
	if n := len(w.Ranges()); n > MaxWindowRanges || n < WindowSize/2 {
		t.Errorf("%d ranges", n)
	}
}

func TestWindowBinary(t *testing.T) {
	var w Window
	mark(t, &w, 1, 2, 9, 4000, 8000)
	b, err := w.MarshalBinary()
	if err != nil || len(b) != WindowBytes || WindowBytes != 520 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	var got Window
	if err := got.UnmarshalBinary(b); err != nil || got != w {
		t.Errorf("not the same window, %v", err)
	}
	one := Window{high: 9}
	one.set(9)
	b, _ = one.MarshalBinary()
	if b[7] != 9 || b[8+1] != 2 {
		t.Errorf("layout %x", b[:12])
	}
	for name, in := range map[string][]byte{
		"short":            b[:519],
		"long":             append(bytes.Clone(b), 0),
		"top not marked":   change(b, 9, 0),
		"bit above":        change(b, 9, 6),
		"bit of counter 0": change(b, 8, 1),
		"bits of nothing":  change(b, 7, 0),
	} {
		if err := got.UnmarshalBinary(in); KindOf(err) != Field || got != w {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := got.UnmarshalBinary(make([]byte, WindowBytes)); err != nil || got != (Window{}) {
		t.Errorf("empty window: %v", err)
	}
}

func change(b []byte, at int, to byte) []byte {
	b = bytes.Clone(b)
	b[at] = to
	return b
}

func FuzzWindow(f *testing.F) {
	var w Window
	for _, c := range []uint64{1, 2, 9, 4000, 8000} {
		if _, err := w.Mark(c); err != nil {
			f.Fatal(err)
		}
		b, _ := w.MarshalBinary()
		f.Add(b)
	}
	f.Add(make([]byte, WindowBytes))
	f.Fuzz(func(t *testing.T, in []byte) {
		var w Window
		if w.UnmarshalBinary(in) != nil {
			return
		}
		out, err := w.MarshalBinary()
		if err != nil || !bytes.Equal(in, out) {
			t.Fatalf("%x becomes %x", in, out)
		}
		ranges := w.Ranges()
		if len(ranges) > MaxWindowRanges || len(ranges) == 0 != (w.High() == 0) {
			t.Fatalf("%d ranges", len(ranges))
		}
		for _, r := range ranges {
			if !w.Done(r[0]) || !w.Done(r[1]) || r[1] < math.MaxUint64 && w.Done(r[1]+1) {
				t.Fatalf("range %v", r)
			}
		}
	})
}

func BenchmarkWindowMark(b *testing.B) {
	var w Window
	c := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		c++
		if fresh, err := w.Mark(c); !fresh || err != nil {
			b.Fatal(fresh, err)
		}
	}
}
