// Package interop builds a MASQUE client and proxy of masque-go, which others wrote, and
// runs the tests of package masque that need them. It is a module of its own, without
// the project in it: masque-go v0.4.0 compiles with quic-go v0.60.0 alone, and the
// transport has a later one. So the two meet on the wire only, each in its process.
package interop
