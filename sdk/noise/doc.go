// Package noise holds the Noise handshakes of CCP-1 and the record layer that
// follows them.
//
// Four protocols are spoken, all of suite 25519_ChaChaPoly_BLAKE2s:
//
//	Noise_XK        the reference's handshake        3 messages
//	Noise_IK        two messages, for resumption     2 messages
//	Noise_XKpsk3    XK with the ML-KEM-768 hybrid    3 messages
//	Noise_IKpsk2    IK with the ML-KEM-768 hybrid    2 messages
//
// A Handshake is driven by WriteMessage and ReadMessage in turn; when Finished
// reports true, Hash is what the device signs and Split gives the two ciphers:
//
//	record = varint n | ciphertext (n bytes, 16 <= n <= 65,535)
//
// The plaintexts of one direction are one byte stream. The nonce of a record is
// four zero bytes and its number, little endian. After every 65,536 records a
// direction calls Noise REKEY; its number is not reset and never reaches 2^48.
//
// The handshake is flynn/noise with X25519 by circl; the records are sealed and
// opened by this package without an allocation.
//
// Source: The Noise Protocol Framework, revision 34; protocol-extensions,
// sections 3, 4 and 10.
package noise
