// Package pt is the transport that carries any pluggable transport of Tor's: obfs4,
// webtunnel, snowflake and what else keeps to the managed-proxy protocol. The programs
// are used as they are.
//
//	client ─► child's client side ═══ obfs4 … ═══► child's server side ─► ExtORPort ─► relay
//	     SOCKS5, arguments              (own process, supervised)      the client's address
//
// On both sides the connection to the child is, after a header that is read byte by
// byte, the stream itself: a plugin process hands the socket on and is out of the path.
//
// A child's grant says little: snowflake grants before it has a peer. The client
// therefore begins each stream with one byte, which the relay answers (ready).
package pt
