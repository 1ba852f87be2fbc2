// Package child offers transports of ours as pluggable transports: it is the whole
// program that Tor, or anything else that speaks the managed-proxy protocol, starts as
// its child, on both sides.
//
//	tor ── SOCKS5 ──► child ═══ reality, masque … ═══► child ── ExtORPort ──► tor (bridge)
//
// On the server side a transport's configuration is what the parent gives as options
// (ServerTransportOptions), and what clients must know is printed as arguments, which
// belong into the bridge line.
package child
