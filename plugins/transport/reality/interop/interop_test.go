package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestXray(t *testing.T) {
	program := filepath.Join(t.TempDir(), "xray")
	build := exec.Command("go", "build", "-o", program, "github.com/xtls/xray-core/main")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building Xray: %v\n%s", err, out)
	}
	run := exec.Command("go", "test", "-C", "..", "-count=1", "-v", "-run", "^TestXray", ".")
	run.Env = append(os.Environ(), "COMMUCAT_XRAY="+program)
	out, err := run.CombinedOutput()
	if err != nil || strings.Contains(string(out), "SKIP") || !strings.Contains(string(out), "--- PASS: TestXrayServer") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
