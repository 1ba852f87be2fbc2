// Package obfs knows how AmneziaWG's datagrams differ from WireGuard's: the
// parameters and their rules, special packets, the classification of what
// arrives, and the keyed parts that a rewritten type word touches (MAC1, MAC2,
// cookie replies, header protection). It moves no packet itself.
//
// WireGuard's four messages, all fields little-endian (WireGuard white paper,
// section 5.4):
//
//	initiation  148  type 4 | sender 4 | ephemeral 32 | static 48 | timestamp 28 | mac1 16 | mac2 16
//	response     92  type 4 | sender 4 | receiver 4 | ephemeral 32 | empty 16 | mac1 16 | mac2 16
//	cookie       64  type 4 | receiver 4 | nonce 24 | cookie 32
//	transport   32+  type 4 | receiver 4 | counter 8 | sealed, with a tag of 16
//
// On AmneziaWG's wire stand S random bytes before each, the type word is drawn
// from a range, and from generation 3 on a key stream covers the headers:
//
//	S1..S4 random | message with a type of H1..H4 [ | random trailer ]
//
// The type word is no part of the Noise transcript but of both MACs, which is why
// they are made anew. All-default parameters are plain WireGuard, byte for byte.
package obfs
