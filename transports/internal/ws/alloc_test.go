//go:build !race

package ws

import (
	"strings"
	"testing"
)

func TestBudgetSteadyPathDoesNotAllocate(t *testing.T) {
	c := New(&loop{data: frame(opBinary, true, true, strings.Repeat("x", 300))}, Server, nil, new(Buffers))
	p := make([]byte, 512)
	if allocs := testing.AllocsPerRun(1000, func() {
		if _, err := c.Read(p); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}
