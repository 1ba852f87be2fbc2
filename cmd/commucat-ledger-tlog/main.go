// Command commucat-ledger-tlog is the ledger plugin "tlog" as a process of its own.
package main

import (
	"github.com/commucat/commucat/plugins/ledger/tlog"
	"github.com/commucat/commucat/sdk/plugin"
)

func main() { plugin.Serve(tlog.Plugin) }
