package sandbox

import "testing"

// FuzzStatus reads what a kernel might show: no crash, and nothing made up.
func FuzzStatus(f *testing.F) {
	f.Add([]byte("Name:\tx\nUid:\t1\t2\t3\t4\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t1\nSeccomp_filters:\t2\n"))
	f.Add([]byte("Uid:\nCapEff:\tz\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStatus(b)
		if err == nil && len(b) < len("Uid:0\nCapEff:0\nNoNewPrivs:0") {
			t.Errorf("%q gave %+v", b, s)
		}
	})
}
