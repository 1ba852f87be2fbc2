// Package cover is the web site that strangers see: a folder, a plain built-in
// site, or the operator's own origin behind a reverse proxy.
//
// Whatever a relay does not recognise as its own is answered here, on any path
// and with any method, so that a server with a relay and the same server
// without one give the same bytes. Nothing in this package knows whether there
// is a relay.
package cover
