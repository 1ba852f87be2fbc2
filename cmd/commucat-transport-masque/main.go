// Command commucat-transport-masque is the transport plugin "masque" as a process of its own.
package main

import (
	"github.com/commucat/commucat/plugins/transport/masque"
	"github.com/commucat/commucat/sdk/plugin"
)

func main() { plugin.Serve(masque.Plugin()) }
