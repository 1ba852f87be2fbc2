// Command commucat-transport-pt is the transport plugin "pt" as a process of its own.
package main

import (
	"github.com/commucat/commucat/plugins/transport/pt"
	"github.com/commucat/commucat/sdk/plugin"
)

func main() { plugin.Serve(pt.Plugin()) }
