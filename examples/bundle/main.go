// Command bundle is a plugin binary that holds several plugins of different kinds.
package main

import (
	"github.com/commucat/commucat/plugins/ledger/file"
	"github.com/commucat/commucat/plugins/storage/memory"
	"github.com/commucat/commucat/plugins/storage/sqlite"
	"github.com/commucat/commucat/sdk/plugin"
)

func main() { plugin.Serve(sqlite.Plugin(), memory.Plugin(), file.Plugin) }
