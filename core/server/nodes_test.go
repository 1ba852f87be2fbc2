package server

import (
	"log/slog"
	"strings"
	"testing"
)

// TestNodeNames: two runs have two names, also on copies of one data folder.
func TestNodeNames(t *testing.T) {
	s := &Server{opt: Options{Rand: strings.NewReader("abcdefuvwxyz")}, data: &data{drawn: drawn{Node: "n"}}, log: slog.New(slog.DiscardHandler)}
	a, err := s.nodeName()
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.nodeName()
	if err != nil || a == b || !strings.HasPrefix(a, "n-") {
		t.Errorf("names %q and %q of two runs: %v", a, b, err)
	}
	if _, err := s.nodeName(); err == nil {
		t.Error("a name without randomness")
	}
}
