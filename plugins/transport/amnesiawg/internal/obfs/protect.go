package obfs

import "golang.org/x/crypto/chacha20"

// cover applies the key stream of header protection to a message: ChaCha20 (RFC
// 8439) from block 0, with the first 12 bytes of the prefix as nonce, over a whole
// handshake message or over the header of a transport message. It is applied last
// when sending and first when receiving; twice is not at all.
func (p *Params) cover(prefix, msg []byte) {
	c, err := chacha20.NewUnauthenticatedCipher(p.Protection[:], prefix[:NonceSize])
	if err != nil {
		panic(err) // both sizes are right
	}
	c.XORKeyStream(msg, msg)
}

// stream is the beginning of that key stream.
func (p *Params) stream(datagram []byte) (s [HeaderSize]byte) {
	p.cover(datagram, s[:])
	return s
}
