package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestWebtunnel(t *testing.T) {
	const from = "gitlab.torproject.org/tpo/anti-censorship/pluggable-transports/webtunnel/main/"
	dir := t.TempDir()
	for _, side := range []string{"client", "server"} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "webtunnel-"+side), from+side)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building webtunnel's %s: %v\n%s", side, err, out)
		}
	}
	run := exec.Command("go", "test", "-C", "..", "-count=1", "-v", "-run", "^TestWebtunnel$", ".")
	run.Env = append(os.Environ(), "COMMUCAT_WEBTUNNEL="+dir)
	out, err := run.CombinedOutput()
	if err != nil || strings.Contains(string(out), "SKIP") || !strings.Contains(string(out), "--- PASS: TestWebtunnel") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
