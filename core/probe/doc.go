// Package probe compares a server with a reference, as a stranger who suspects
// a relay would: the same input to both, then the bytes, the order, the way the
// connection ends and the time to the first byte.
//
// The battery is a table of kinds (Kinds): raw TCP, TLS hellos whole and
// damaged, HTTP/1.1 and HTTP/2 well formed and malformed, and the paths, tokens
// and upgrades that a relay of this family might answer to. Inputs are drawn
// from a seed, so a difference can be repeated.
//
// What differs between any two connections to one server is masked: Date, TLS
// randomness and lengths of encrypted handshake records, the cutting of HTTP/2
// data into frames.
package probe
