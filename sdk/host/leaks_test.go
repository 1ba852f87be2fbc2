package host_test

import (
	"os"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Many processes leave neither goroutines nor descriptors nor files behind.
func TestNothingIsLeft(t *testing.T) {
	file := plugintest.Build(t, sample)
	dir := runtimeFolder(t)
	cycle := func() {
		p, err := host.Start(t.Context(), host.Options{File: file, Runtime: dir})
		if err != nil {
			t.Fatal(err)
		}
		o, err := transport.Open(t.Context(), p.Plugins()[0], nil, map[string]any{"mode": "pumped", "table": map[string]any{"count": 1}})
		if err != nil {
			t.Fatal(err)
		}
		ln, err := o.Listen(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		connected(t, ln) // the stream is left open
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	cycle()
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	cycles := 20
	if os.Getenv("COMMUCAT_SOAK") != "" {
		cycles = 200
	}
	for range cycles {
		cycle()
	}
	// What the cycles themselves keep until the test ends: two ends of a stream each.
	most := files + 2*cycles
	until(t, "descriptors are given back", func() bool { return descriptors(t) <= most })
	for end := time.Now().Add(patience); runtime.NumGoroutine() > goroutines; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 64<<10)
			t.Fatalf("%d goroutines, then %d\n%s", goroutines, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Error(names, err)
	}
}
