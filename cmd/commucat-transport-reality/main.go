// Command commucat-transport-reality is the transport plugin "reality" as a process of its own.
package main

import (
	"github.com/commucat/commucat/plugins/transport/reality"
	"github.com/commucat/commucat/sdk/plugin"
)

func main() { plugin.Serve(reality.Plugin()) }
