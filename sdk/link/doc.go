// Package link reads and writes what a client must know before it has ever
// spoken to a relay: links (invitations, pairing links, addresses) and the
// signed catalogue of a relay's keys. Both are signed by the relay's root key.
//
// A link is
//
//	commucat:// base32( version u8 = 1 | kind u8 | TLVs | signature 64 )
//
// with TLVs of tag u8, varint length and value in ascending order of their tags
// (RFC 4648 base32 without padding, either case). The web form
// https://HOST[:PORT]/#BASE32 carries the same bytes in a fragment, which never
// reaches a server. protocol-extensions.md sections 8 and 9 are the source.
//
// A link proves only that its root key signed it. Whether that root is the one
// pinned for its domain is for the caller to check. Whoever holds a link that has
// not expired can recognise the relay and use the secret in it: links must not
// be logged.
//
// Functions may be called concurrently.
package link
