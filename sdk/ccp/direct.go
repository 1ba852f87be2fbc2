package ccp

import (
	"crypto/sha256"
	"encoding/binary"
)

// DirectChannel is the channel on which peers without the capability ack see
// the direct messages between two devices, the same in both directions: 1 + the
// first four bytes of SHA-256("commucat/direct/1" ‖ 00 ‖ smaller id ‖ 00 ‖
// larger id) mod 2^31.
func DirectChannel(a, b string) uint32 {
	if b < a {
		a, b = b, a
	}
	h := sha256.New()
	h.Write([]byte("commucat/direct/1\x00" + a + "\x00" + b))
	return 1 + binary.BigEndian.Uint32(h.Sum(nil))&(1<<31-1)
}

// LegacyLog is the log that a relay gives to the messages of a peer without the
// capability ack: the first eight bytes of SHA-256 of its session's id.
func LegacyLog(session string) [8]byte {
	h := sha256.Sum256([]byte(session))
	return [8]byte(h[:8])
}
