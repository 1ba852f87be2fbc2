package bench

import (
	"context"
	"testing"
	"time"
)

func TestTLSFloorCountsEveryHandshake(t *testing.T) {
	count, cpu, err := TLSFloor(t.Context(), 4, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if count < 4 || cpu < 0 {
		t.Errorf("%d handshakes, %v", count, cpu)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := TLSFloor(ctx, 1, time.Millisecond); err == nil {
		t.Error("no error when it is told to end")
	}
	h := handshakes{count: 500, cpu: time.Second}
	if got := h.each(); got != 2000 {
		t.Errorf("500 in a second are %v µs each", got)
	}
	if got := (&handshakes{}).each(); got != 0 {
		t.Errorf("none are %v µs each", got)
	}
}
