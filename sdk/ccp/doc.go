// Package ccp is the wire format of CCP-1 and of the extensions that CommuCat
// adds to it: frames, control envelopes, limits, version and capability
// negotiation, and the duplicate window. It does no I/O, keeps no state of its
// own and imports nothing but the standard library.
//
// # Frames
//
// Everything on a connection is a frame, in clear during the handshake and
// inside Noise records afterwards:
//
//	+-----------------+------+-------------+------------+--------------+-----------+
//	| body length     | type | channel     | sequence   | payload len  | payload   |
//	| varint          | u8   | varint      | varint     | varint       | bytes     |
//	+-----------------+------+-------------+------------+--------------+-----------+
//	                  |<----------------------- body ----------------------------->|
//
// [Decode] answers [ErrIncomplete] only when more bytes can complete the frame.
// Whatever is wrong inside a complete body is an [*Error] and final: a decoder
// that waited for more there would wait for ever.
//
// # Memory
//
// Decoding never copies and never allocates for opaque types; slices in the
// results alias the input and are valid as long as it is unchanged. Nothing is
// allocated in proportion to a length that the peer merely announced.
//
// # JSON
//
// Control payloads are JSON, checked by [ValidControl], which is stricter than
// encoding/json: ill-formed UTF-8, lone surrogates, a byte order mark, numbers
// beyond a 64-bit float and more than 127 levels are refused. Keys are
// compared exactly, the last of equal keys wins. [CanonicalJSON] gives the form
// "JSON sorted" that relayed control frames have.
//
// # Concurrency
//
// Functions may be called concurrently. Values have no locks: a value that one
// goroutine changes must not be used by another at the same time.
package ccp
