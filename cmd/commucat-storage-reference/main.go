// Command commucat-storage-reference is the storage plugin "reference" as a process of its own.
package main

import (
	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/sdk/plugin"
)

func main() { plugin.Serve(postgres.Reference()) }
