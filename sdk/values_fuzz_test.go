package sdk_test

import (
	"testing"

	"github.com/commucat/commucat/sdk"
)

// FuzzText holds that what is read and written reads back the same.
func FuzzText(f *testing.F) {
	for _, s := range []string{"64KiB", "1.5 MiB", "0", "14d", "1d12h", "250ms", "9223372036854775807", "106751d", "1e9GB", "3.000000001GB", "2d0s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := sdk.ParseSize(s); err == nil {
			if again, err := sdk.ParseSize(n.String()); err != nil || again != n || n < 0 {
				t.Fatalf("size %q is %d, written %s, read %d, %v", s, n, n, again, err)
			}
		}
		if d, err := sdk.ParseDuration(s); err == nil {
			text := sdk.FormatDuration(d)
			if again, err := sdk.ParseDuration(text); err != nil || again != d || d < 0 {
				t.Fatalf("duration %q is %d, written %s, read %d, %v", s, d, text, again, err)
			}
		}
	})
}
