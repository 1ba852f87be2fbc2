package sqlite

import (
	"context"
	"testing"
)

// TestVerifyRunsOutOfTime: a machine too slow for the check at the start starts
// all the same; a caller that gave up is told.
func TestVerifyRunsOutOfTime(t *testing.T) {
	d := openTest(t, t.TempDir(), Config{}, options{}).Directory.(*directory).db
	if err := d.verify(t.Context(), 0); err != nil {
		t.Errorf("no time at all: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.verify(gone, 0); err == nil {
		t.Error("the caller's end was taken for success")
	}
}
