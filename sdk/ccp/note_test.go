package ccp

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestNoteJumpsAnyDistance(t *testing.T) {
	var w Window
	for _, c := range []uint64{1, WindowSize + 1, 3 * WindowSize, 3*WindowSize - 1, math.MaxUint64} {
		if !w.Note(c) {
			t.Errorf("Note(%d) = false for a fresh counter", c)
		}
		if w.Note(c) {
			t.Errorf("Note(%d) = true for a repeated counter", c)
		}
	}
	if w.Note(0) {
		t.Error("Note(0) = true")
	}
	if w.Note(WindowSize + 2) {
		t.Error("a counter below the window must count as done")
	}
}

// Note agrees with a plain set for every counter that is still in the window.
func TestNoteAgreesWithASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			w    Window
			seen = map[uint64]bool{}
			high uint64
		)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			c := rapid.Uint64Range(1, 4*WindowSize).Draw(t, "counter")
			want := !seen[c] && (c > high || high-c < WindowSize)
			if got := w.Note(c); got != want {
				t.Fatalf("Note(%d) = %v, want %v (high %d)", c, got, want, high)
			}
			seen[c], high = true, max(high, c)
		}
	})
}
