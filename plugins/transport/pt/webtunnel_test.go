package pt

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

// TestWebtunnel is run by the module interop, which builds the programs. Its client
// refuses private addresses, so that a public one is needed, in a network of its own.
func TestWebtunnel(t *testing.T) {
	dir := os.Getenv("COMMUCAT_WEBTUNNEL")
	if dir == "" {
		t.Skip("the module interop runs this")
	}
	const inside = "COMMUCAT_WEBTUNNEL_INSIDE"
	if os.Getenv(inside) == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		in := exec.CommandContext(t.Context(), "unshare", "-r", "-n", self, "-test.run", "^TestWebtunnel$", "-test.v")
		in.Env = append(os.Environ(), inside+"=1")
		out, err := in.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestWebtunnel") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for _, args := range []string{"link set lo up", "addr add 203.0.113.1/32 dev lo"} {
		if b, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v %s", args, err, b)
		}
	}
	s := listenOn(t, plugintest.NewLender(t), map[string]any{
		"command": filepath.Join(dir, "webtunnel-server"), "listen": "203.0.113.1:8080", "options": map[string]any{"url": "http://203.0.113.1:8080/path"},
	})
	to := invite(t, s)
	if to.Port != 8080 || !strings.Contains(to.Params[paramArgs], "url=") {
		t.Fatalf("%+v", to)
	}
	o := open(t, sdk.NewEnv(sdk.EnvOptions{}), map[string]any{"command": filepath.Join(dir, "webtunnel-client")})
	c, got := both(t, o, s, to)
	if f := transport.FactsOf(got); f.Remote.Addr().String() != "203.0.113.1" {
		t.Errorf("%+v", f)
	}
	if _, err := c.Write([]byte("words")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(got, b); err != nil || string(b) != "words" {
		t.Errorf("%q, %v", b, err)
	}
}
