package audit

import "testing"

// FuzzMark: what is read is written again as it was, and nothing else is read.
func FuzzMark(f *testing.F) {
	for _, s := range []string{"", "7\n", "7 00\n", mark{true, 18, make([]byte, 32)}.String(), "\x00\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := parseMark(s)
		if err != nil {
			return
		}
		again, err := parseMark(m.String())
		if err != nil || again.seq != m.seq || string(again.hash) != string(m.hash) {
			t.Errorf("%q became %q: %v", s, m, err)
		}
	})
}
