// Command commucat-pt offers transports of ours as pluggable transports: Tor, or anything
// else that speaks the managed-proxy protocol, starts it as client and as server side.
package main

import (
	"os"

	"github.com/commucat/commucat/plugins/transport/masque"
	"github.com/commucat/commucat/plugins/transport/pt/child"
	"github.com/commucat/commucat/plugins/transport/reality"
	"github.com/commucat/commucat/transports/websocket"
)

func main() {
	os.Exit(child.Main(
		child.Method{Name: reality.Name, Plugin: reality.Plugin(), Prepare: realityKeys},
		child.Method{Name: masque.Name, Plugin: masque.Plugin(), Prepare: masqueLimits, Site: true},
		child.Method{Name: websocket.Name, Plugin: webSocket()},
	))
}
