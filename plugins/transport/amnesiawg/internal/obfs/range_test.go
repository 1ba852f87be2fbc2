package obfs

import (
	"math"
	"testing"
)

func TestRange(t *testing.T) {
	tests := []struct {
		in   string
		want Range
		ok   bool
	}{
		{"5", Range{5, 5}, true},
		{"5-5", Range{5, 5}, true},
		{"0-4294967295", Range{0, math.MaxUint32}, true},
		{"7-9", Range{7, 9}, true},
		{"9-7", Range{}, false},
		{"", Range{}, false},
		{"-", Range{}, false},
		{"5-", Range{}, false},
		{"-5", Range{}, false},
		{"+5", Range{}, false},
		{"1-2-3", Range{}, false},
		{" 5", Range{}, false},
		{"4294967296", Range{}, false},
	}
	for _, tt := range tests {
		got, err := ParseRange(tt.in)
		if (err == nil) != tt.ok || got != tt.want {
			t.Errorf("%q: %v, %v", tt.in, got, err)
		}
	}
	r := Range{10, 20}
	for v, want := range map[uint32]bool{9: false, 10: true, 20: true, 21: false, 0: false, math.MaxUint32: false} {
		if r.Contains(v) != want {
			t.Errorf("contains %d: %v", v, !want)
		}
	}
	for o, want := range map[Range]bool{{0, 9}: false, {0, 10}: true, {12, 13}: true, {20, 30}: true, {21, 30}: false, {0, 100}: true} {
		if r.Overlaps(o) != want || o.Overlaps(r) != want {
			t.Errorf("overlaps %v: %v", o, !want)
		}
	}
	full := Range{0, math.MaxUint32}
	for range 1000 {
		if v := r.Pick(); !r.Contains(v) {
			t.Fatalf("picked %d", v)
		}
		full.Pick()
	}
}

func FuzzRange(f *testing.F) {
	f.Add("5-9")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRange(s)
		if err != nil {
			return
		}
		if again, err := ParseRange(r.String()); err != nil || again != r {
			t.Errorf("%q: %v, then %v, %v", s, r, again, err)
		}
	})
}
