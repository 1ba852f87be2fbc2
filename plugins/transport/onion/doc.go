// Package onion is the transport by which a relay is reached as a Tor onion service
// (version 3): without a public address, and without either side learning where the
// other is.
//
//	client ─► tor (SOCKS) ═══ six relays ═══► tor ─► unix socket ─► relay
//	   token of the guest                      PROXY line: the circuit
//
// The plugin runs a tor of its own. The service's key is kept in the state folder, so
// that the address is the same after each start. Each circuit is told apart by the
// PROXY line that tor writes before a stream; behind it comes the guest's token, and
// from there on the connection is the stream itself, which a plugin process hands on.
//
// A guest is let in twice: tor reveals the service's descriptor only to who has the
// guest's X25519 key (client authorisation), and a stream begins with the guest's
// token. The first keeps strangers from finding the service at all, the second makes a
// revocation count at once, where a descriptor may still lie in the guest's cache.
package onion
