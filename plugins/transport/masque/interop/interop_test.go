package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestMasqueGo(t *testing.T) {
	program := filepath.Join(t.TempDir(), "peer")
	build := exec.Command("go", "build", "-o", program, "./peer")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the peer: %v\n%s", err, out)
	}
	run := exec.Command("go", "test", "-C", "..", "-count=1", "-v", "-run", "^TestMasqueGo", ".")
	run.Env = append(os.Environ(), "COMMUCAT_MASQUE_GO="+program)
	out, err := run.CombinedOutput()
	for _, name := range []string{"TestMasqueGoClient", "TestMasqueGoProxy"} {
		if err != nil || strings.Contains(string(out), "SKIP") || !strings.Contains(string(out), "--- PASS: "+name) {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	t.Logf("%s", out)
}
