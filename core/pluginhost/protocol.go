package pluginhost

// The plugin protocols that the relay speaks: the newest, and two numbers back.
const (
	oldestProtocol = 1
	newestProtocol = 1
)
