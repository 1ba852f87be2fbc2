package masque

import (
	"testing"

	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/transport"
)

// TestPlugin runs the whole suite in this process and against the binary.
func TestPlugin(t *testing.T) {
	plugintest.Plugin(t, Plugin(), plugintest.PluginOptions{
		Package: "github.com/commucat/commucat/cmd/commucat-transport-masque", Cover: page, Clients: 100,
		Server: func(testing.TB) map[string]any {
			return map[string]any{"listen": "127.0.0.1:0", "guest_sessions": 10000}
		},
		Client: func(testing.TB) map[string]any { return map[string]any{"fallback": patient} },
		Dial:   func(testing.TB) transport.Dial { return transport.Dial{} },
	})
}
