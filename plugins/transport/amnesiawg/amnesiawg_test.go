package amnesiawg_test

import (
	"testing"

	"github.com/commucat/commucat/plugins/transport/amnesiawg"
	"github.com/commucat/commucat/sdk/plugintest"
)

// local is a server's configuration for one machine.
func local(testing.TB) map[string]any {
	return map[string]any{"listen": []any{"127.0.0.1:0"}, "streams": 2000}
}

// client notices soon that a relay is gone, though not on a machine that is only busy.
func client(testing.TB) map[string]any { return map[string]any{"silence": "14s"} }

func TestConformance(t *testing.T) {
	plugintest.Plugin(t, amnesiawg.Plugin(), plugintest.PluginOptions{
		Package: "github.com/commucat/commucat/cmd/commucat-transport-amnesiawg",
		Server:  local, Client: client, Probes: true,
	})
}
