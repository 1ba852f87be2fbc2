package plugintest

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
)

// builds are the binaries of this test process, by package: open, and without a name
// that would have to be removed. (A test process is the one place without a caller to
// keep them.)
var builds struct {
	sync.Mutex
	files map[string]*os.File
}

// Build builds the command in package pkg (an import path, or a path as "./cmd/x"),
// with the race detector if that is on in this process. It is built once in a test
// process; the file stays open and must not be closed.
func Build(t testing.TB, pkg string) *os.File {
	t.Helper()
	builds.Lock()
	defer builds.Unlock()
	if f, ok := builds.files[pkg]; ok {
		return f
	}
	dir, err := os.MkdirTemp("", "plugintest-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "plugin")
	args := []string{"build", "-o", out}
	if raceOn {
		args = append(args, "-race")
	}
	if b, err := exec.Command("go", append(args, pkg)...).CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, b)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	if builds.files == nil {
		builds.files = map[string]*os.File{}
	}
	builds.files[pkg] = f
	return f
}

// Start starts a binary until the test ends.
func Start(t testing.TB, file *os.File, o host.Options) *host.Process {
	t.Helper()
	o.File = file
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, err := host.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// Binary builds the command in package pkg and starts it until the test ends. The
// result is its only plugin, as it stands in the other process.
func Binary(t testing.TB, pkg string) sdk.Plugin {
	t.Helper()
	p := Start(t, Build(t, pkg), host.Options{})
	all := p.Plugins()
	if len(all) != 1 {
		t.Fatalf("%s has %d plugins; start it with Start and choose one", pkg, len(all))
	}
	return all[0]
}

// testWriter writes the log of a test. A process may outlive its test for a moment.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Helper()
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSuffix(string(b), "\n"))
	}
	return len(b), nil
}
