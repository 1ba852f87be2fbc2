// Command commucat-transport-onion is the transport plugin "onion" as a process of its own.
package main

import (
	"github.com/commucat/commucat/plugins/transport/onion"
	"github.com/commucat/commucat/sdk/plugin"
)

func main() { plugin.Serve(onion.Plugin()) }
