package pt_test

import (
	"testing"

	"github.com/commucat/commucat/plugins/transport/pt"
	"github.com/commucat/commucat/sdk/plugintest"
)

// TestConformance is the whole suite over obfs4proxy of the distribution, both ends.
func TestConformance(t *testing.T) {
	plugintest.Plugin(t, pt.Plugin(), plugintest.PluginOptions{
		Package: "github.com/commucat/commucat/cmd/commucat-transport-pt", Clients: 20, Probes: true,
		Buffered: 64 << 20, // three sockets and a program's buffers
		Server:   func(testing.TB) map[string]any { return map[string]any{"listen": "127.0.0.1:0"} },
		Client:   func(testing.TB) map[string]any { return map[string]any{} },
		Skip:     []string{"revoked"}, // all clients of a pluggable transport are the same to it
	})
}
