// Command commucat-storage-redis is the storage plugin "redis" as a process of its own.
package main

import (
	"github.com/commucat/commucat/plugins/storage/redis"
	"github.com/commucat/commucat/sdk/plugin"
)

func main() { plugin.Serve(redis.Plugin()) }
