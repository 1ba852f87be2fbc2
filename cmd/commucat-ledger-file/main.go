// Command commucat-ledger-file is the ledger plugin "file" as a process of its own.
package main

import (
	"github.com/commucat/commucat/plugins/ledger/file"
	"github.com/commucat/commucat/sdk/plugin"
)

func main() { plugin.Serve(file.Plugin) }
