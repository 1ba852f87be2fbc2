package onion

import (
	"context"
	"os"
	"testing"

	"github.com/commucat/commucat/plugins/transport/onion/tornet"
	"github.com/commucat/commucat/sdk/plugintest"
)

// TestConformance runs the suite over a Tor network of its own. Each of its cases starts
// a tor for each half, which takes minutes in all.
func TestConformance(t *testing.T) {
	if os.Getenv("COMMUCAT_SOAK") == "" {
		t.Skip("set COMMUCAT_SOAK=1: each case starts two tors")
	}
	dir, err := os.MkdirTemp("", "tornet-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n, err := tornet.Start(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	config := func(testing.TB) map[string]any {
		var lines []any
		for _, l := range n.Torrc() {
			lines = append(lines, l)
		}
		return map[string]any{"torrc": lines, "stall": "8s", "circuit_streams": 4096}
	}
	plugintest.Plugin(t, Plugin(), plugintest.PluginOptions{
		Package: "github.com/commucat/commucat/cmd/commucat-transport-onion", Clients: 20, Probes: true, Server: config, Buffered: 64 << 20,
	})
}
