package amneziawg

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCarrier: a session of a whole relay and a client over a tunnel that amneziawg-go has
// built from the exported file.
func TestCarrier(t *testing.T) {
	program := filepath.Join(t.TempDir(), "carrier")
	if out, err := exec.Command("go", "build", "-o", program, "./carrier").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := exec.Command("go", "test", "-C", "../../../../../cmd/commucat-transport-amnesiawg", "-count=1", "-v", "-run", "^TestCarrier$", ".")
	run.Env = append(os.Environ(), "COMMUCAT_AMNEZIAWG="+program)
	out, err := run.CombinedOutput()
	if text := string(out); err != nil || !strings.Contains(text, "--- PASS: TestCarrier") && !strings.Contains(text, "this kernel has no") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
