package host

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/transport"
)

// TestProtocolNumbers starts a plugin of today from hosts of other times.
func TestProtocolNumbers(t *testing.T) {
	name := filepath.Join(t.TempDir(), "sample")
	build := exec.Command("go", "build", "-o", name, "./internal/sample")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as programs are built, also where the race detector needs cgo
	if b, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	today := wire.Protocols(sdk.Transport)[0]
	for _, tc := range []struct {
		name   string
		speaks []uint32
		text   string // of the refusal
	}{
		{"the same", []uint32{today}, ""},
		{"the host is one ahead: the plugin is N-1", []uint32{today + 1, today}, ""},
		{"the host is two ahead", []uint32{today + 2, today + 1}, "the plugin is too old for this program"},
		{"the plugin is ahead", []uint32{today - 1}, "this program is too old for the plugin"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := Start(t.Context(), Options{File: f, protocols: func(sdk.Kind) []uint32 { return tc.speaks }})
			if tc.text != "" {
				if err == nil {
					p.Close()
				}
				if !errors.Is(err, sdk.Unsupported) || !strings.Contains(err.Error(), tc.text) || !strings.Contains(err.Error(), "sample: it speaks protocol") {
					t.Error(err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			o, err := transport.Open(t.Context(), p.Plugins()[0], nil, map[string]any{"table": map[string]any{"count": 1}})
			if err != nil {
				t.Fatal(err)
			}
			ln, err := o.Listen(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			ln.Close()
		})
	}
}
