// Package plugin is the whole main function of a plugin binary:
//
//	func main() { plugin.Serve(tls.Plugin) }
//
// The relay starts the binary, asks it for its description, opens the plugins that
// its configuration names and gets every stream as an open descriptor. The plugin
// itself does not notice whether it runs here or inside the relay: it is the same
// sdk.Plugin value, and its Env lends the same things.
//
// Without a relay a plugin binary knows one argument: "describe" prints what it is, as
// JSON.
package plugin
