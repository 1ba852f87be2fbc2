// Command commucat-storage-postgres is the storage plugin "postgres" as a process of its own.
package main

import (
	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/sdk/plugin"
)

func main() { plugin.Serve(postgres.Plugin()) }
