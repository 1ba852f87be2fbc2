package main

import (
	"crypto/tls"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/commucat/commucat/core/pluginhost/sandbox"
)

// TestLoadReality: the demonstration draws what reality needs, and a cover is judged before
// a relay has it.
func TestLoadReality(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("builds a plugin, which needs more memory under the race detector than it is allowed")
	}
	if k := sandbox.Probe(); !k.Complete() {
		t.Skipf("this kernel has no %s", k.Missing())
	}
	dir, err := os.MkdirTemp("", "cp-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "commucat-transport-reality")
	if b, err := exec.Command("go", "build", "-o", binary, "github.com/commucat/commucat/cmd/commucat-transport-reality").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	t.Setenv("COMMUCAT_PLUGINS", dir)
	if code, _, notes := commucat(t, "plugin", "add", binary); code != exitOK {
		t.Fatalf("add: %d %s", code, notes)
	}
	code, out, notes := commucat(t, "demo", "--transports", "reality", "--messages", "20", "--json")
	if code != exitOK || !strings.Contains(out, `{"transport":"reality","ok":true,`) {
		t.Errorf("demo: %d %s %s", code, out, notes)
	}
	old := httptest.NewUnstartedServer(nil)
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	old.StartTLS()
	defer old.Close()
	code, _, notes = commucat(t, "transport", "test", "reality", "--cover", old.Listener.Addr().String(), "--set", `server_names=["example.com"]`)
	if code != exitFailed || !strings.Contains(notes, "is unfit") || !strings.Contains(notes, "does not speak TLS 1.3") || !strings.Contains(notes, "choose another") {
		t.Errorf("TLS 1.2: %d %s", code, notes)
	}
	code, _, notes = commucat(t, "transport", "test", "reality", "--cover", old.Listener.Addr().String())
	if code != exitConfig || !strings.Contains(notes, "server_names") {
		t.Errorf("without a name: %d %s", code, notes)
	}
}
