package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// buildPlugin builds one of the project's plugin binaries.
func buildPlugin(t *testing.T, name string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	build := exec.Command("go", "build", "-o", out, "github.com/commucat/commucat/cmd/"+name)
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as programs are built, also where the race detector needs cgo
	if b, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return out
}

func TestPluginCheck(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a plugin")
	}
	binary := buildPlugin(t, "commucat-ledger-file")
	keys := filepath.Join(t.TempDir(), "keys.toml")
	if err := os.WriteFile(keys, []byte("rotate = \"4KiB\"\npath = \"r-{id}\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := commucat(t, "plugin", "check", binary, "--config", keys, "--json")
	if code != exitOK {
		t.Fatalf("code %d\n%s%s", code, stdout, stderr)
	}
	cases := map[string]string{}
	for line := range strings.Lines(stdout) {
		var c struct{ Case, Result string }
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		cases[c.Case] = c.Result
	}
	for _, want := range []string{"file", "file/restart", "file/concurrent"} {
		if cases[want] != "ok" {
			t.Errorf("case %s: %q", want, cases[want])
		}
	}
	// A mistake in the configuration fails the cases and is named.
	if err := os.WriteFile(keys, []byte("rotat = \"4KiB\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, _ = commucat(t, "plugin", "check", binary, "--config", keys)
	if code != exitFailed || !strings.Contains(stdout, "rotate") {
		t.Errorf("code %d, %s", code, stdout)
	}
}

func TestPluginCheckRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		"no such file": {"/nonexistent"},
		"description":  {"/bin/true"},
	} {
		code, stdout, stderr := commucat(t, append([]string{"plugin", "check"}, args...)...)
		if code != exitFailed || !strings.Contains(stderr, want) || stdout != "" {
			t.Errorf("%v: code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

// TestLoadPluginCheckPython: what speaks the documented protocol passes the suite, whatever
// it is written in. Needs python3-grpcio, see .ci/deps.
func TestLoadPluginCheckPython(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("starts many Python processes, which the race detector does not look into")
	}
	binary := filepath.Join("..", "..", "examples", "transport-python", "commucat-transport-python")
	code, stdout, stderr := commucat(t, "plugin", "check", binary, "--clients", "50", "--timeout", "2m")
	for _, want := range []string{"python/transport/echo", "python/transport/back-pressure", "python/listener_handed_over", "python/killed", "python/what_it_keeps"} {
		if !regexp.MustCompile(`(?m)^ok .* ` + want + `$`).MatchString(stdout) {
			t.Errorf("case %s did not pass", want)
		}
	}
	if code != exitOK {
		t.Errorf("code %d\n%s%s", code, stdout, stderr)
	}
}
