// Command commucat-transport-amnesiawg is the amnesiawg transport as a process of its own.
package main

import (
	"github.com/commucat/commucat/plugins/transport/amnesiawg"
	"github.com/commucat/commucat/sdk/plugin"
)

func main() { plugin.Serve(amnesiawg.Plugin()) }
