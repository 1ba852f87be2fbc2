// Command commucat-ledger-syslog is the ledger plugin "syslog" as a process of its own.
package main

import (
	"github.com/commucat/commucat/plugins/ledger/syslog"
	"github.com/commucat/commucat/sdk/plugin"
)

func main() { plugin.Serve(syslog.Plugin) }
