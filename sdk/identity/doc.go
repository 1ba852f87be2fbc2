// Package identity holds what a device is to a relay: its keys, its
// certificate, the two proofs that it holds its key, key rotation and ids.
//
// A device has one Ed25519 key (RFC 8032). Its public half is the device's
// identity; everything else here is a statement signed with it, or about it:
//
//	Certificate   the relay's device CA names user, device and key
//	Proof         static proof of the reference ("zkp"), binds domain, device
//	              and Noise key but no time: it can be replayed
//	SignConfirm   proof of possession that also covers the Noise handshake hash
//	Rotation      the old key names its successor
//
// Public keys from the network are checked before they are used: canonical
// encodings only, no point of small order. Where a secret takes part the code
// runs in constant time.
//
// Source: CCP-1 section 2; protocol-extensions section 2.
package identity
