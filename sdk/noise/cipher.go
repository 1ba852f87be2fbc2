package noise

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	// Overhead is the tag that sealing adds, in bytes.
	Overhead = chacha20poly1305.Overhead
	// RekeyInterval is the number of records of one key.
	RekeyInterval = 1 << 16
	// MaxCounter is the number of records after which a direction ends.
	MaxCounter = 1 << 48
)

// Cipher is one direction of a finished handshake: ChaCha20-Poly1305 (RFC 8439)
// with empty associated data and the nonce 4 zero bytes | u64 little endian
// counter. After every 65,536 records it calls Noise REKEY (section 11.3); the
// counter goes on. It is not safe for concurrent use, and allocates only when
// it rekeys.
type Cipher struct {
	aead    cipher.AEAD
	counter uint64
	nonce   [chacha20poly1305.NonceSize]byte
	fixed   bool // never rekey
	dead    bool
}

// NewCipher starts a direction with key at counter 0. Two ciphers of one key in
// one direction repeat nonces; Handshake.Split is the usual source.
func NewCipher(key [32]byte) *Cipher {
	c := new(Cipher)
	c.setKey(key)
	return c
}

// WithoutRekey turns rekeying off, for peers that did not accept the records
// capability: the reference never rekeys. It must be called before the first
// record, and returns c.
func (c *Cipher) WithoutRekey() *Cipher {
	c.fixed = true
	return c
}

// Counter is the number of records sealed or opened so far.
func (c *Cipher) Counter() uint64 { return c.counter }

// AppendSeal encrypts plaintext and appends the ciphertext, 16 bytes longer, to
// dst. plaintext may be dst[len(dst):len(dst)+n] itself, but may not overlap it
// otherwise. Error kind: KindRetired.
func (c *Cipher) AppendSeal(dst, plaintext []byte) ([]byte, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	out := c.aead.Seal(dst, c.nonce[:], plaintext, nil)
	c.counter++
	return out, nil
}

// Open decrypts ciphertext and appends the plaintext to dst; dst may be
// ciphertext[:0]. A failure is final: it wipes the output, which in place is the
// ciphertext, and every later call fails too. Error kinds: KindDecrypt, KindRetired.
func (c *Cipher) Open(dst, ciphertext []byte) ([]byte, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	out, err := c.aead.Open(dst, c.nonce[:], ciphertext, nil)
	if err != nil {
		c.dead = true
		return nil, ErrDecrypt
	}
	c.counter++
	return out, nil
}

// ready rekeys if this record begins a new interval and sets the nonce.
func (c *Cipher) ready() error {
	switch {
	case c.dead:
		return ErrDecrypt
	case c.counter >= MaxCounter:
		return ErrRetired
	case c.counter%RekeyInterval == 0 && c.counter != 0 && !c.fixed:
		c.rekey()
	}
	binary.LittleEndian.PutUint64(c.nonce[4:], c.counter)
	return nil
}

// rekey sets k = REKEY(k): the first 32 bytes of 32 zeros encrypted with nonce
// 2^64-1. It is called once at the head of each interval but the first.
func (c *Cipher) rekey() {
	var buf [32 + Overhead]byte
	binary.LittleEndian.PutUint64(c.nonce[4:], math.MaxUint64)
	c.aead.Seal(buf[:0], c.nonce[:], buf[:32], nil)
	c.setKey([32]byte(buf[:32]))
	clear(buf[:])
}

func (c *Cipher) setKey(key [32]byte) {
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic("noise: " + err.Error()) // only for keys that are not 32 bytes
	}
	c.aead = aead
}

// Format prints the counter for every verb, so that none shows the key.
func (c *Cipher) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "noise cipher at record %d", c.counter)
}
