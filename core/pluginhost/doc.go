// Package pluginhost is the policy over sdk/host: which plugin may run, how it is
// confined, and what happens when it ends.
//
//	plugins.lock ─► Catalog ─► one open, hashed descriptor
//	                              │ sandbox (package sandbox)
//	                              ▼
//	Host ── Supervisor: stopped → starting → running → draining → stopped
//	                        ▲         │ end, hang
//	                        └ backoff ┴─► parked after five ends in two minutes
//
// A [Catalog] is the folders in which plugins lie, each with its plugins.lock; nothing
// runs because it lies there. A [Host] runs one process for each configured name, so
// that an end costs the connections of that name alone. [Host.Transport] keeps the
// listening sockets and lends duplicates, which makes an upgrade beside the running
// process possible; [Host.Storage] and [Host.Ledger] give values that outlive their
// process: calls wait for the next one.
package pluginhost
