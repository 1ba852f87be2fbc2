package sqlite

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// resident is the process's resident memory in KiB.
func resident(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestIdle bounds what an idle store costs. The figures are far below these limits
// on a machine that does nothing else.
func TestIdle(t *testing.T) {
	for _, e := range engines {
		before, start := resident(t), time.Now()
		openTest(t, t.TempDir(), Config{Queues: e}, options{})
		took := time.Since(start)
		if grown := resident(t) - before; grown > 24<<10 || took > time.Second {
			t.Errorf("%s: %d KiB more, opened in %v", e, grown, took)
		} else {
			t.Logf("%s: %d KiB before, %d KiB more, opened in %v", e, before, grown, took)
		}
	}
}
