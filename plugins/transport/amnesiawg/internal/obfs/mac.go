package obfs

import (
	"crypto/subtle"
	"encoding/binary"
	"hash"

	"golang.org/x/crypto/blake2s"
)

// MACSize is the size of MAC1 and MAC2, the last 16 and 32 bytes of initiations
// and responses.
const MACSize = blake2s.Size128

// labels of keys (WireGuard white paper, sections 5.4.4 and 5.4.7).
const (
	labelMAC1   = "mac1----"
	labelCookie = "cookie--"
)

// MAC1Key is the key of MAC1 in messages to the owner of a public key.
func MAC1Key(public [32]byte) [32]byte {
	return blake2s.Sum256(append([]byte(labelMAC1), public[:]...))
}

// CookieKey is the key that the owner of a public key seals cookies with.
func CookieKey(public [32]byte) [32]byte {
	return blake2s.Sum256(append([]byte(labelCookie), public[:]...))
}

// A MAC makes and checks MAC1 under one key. It is not for concurrent use.
type MAC struct{ h hash.Hash }

// NewMAC makes a MAC with a key of MAC1Key.
func NewMAC(key [32]byte) *MAC {
	h, err := blake2s.New128(key[:])
	if err != nil {
		panic(err) // the size of the key is right
	}
	return &MAC{h}
}

func (m *MAC) sum(b []byte) (out [MACSize]byte) {
	m.h.Reset()
	m.h.Write(b)
	m.h.Sum(out[:0])
	return out
}

// Check says whether MAC1 of an initiation or response is right.
func (m *MAC) Check(msg []byte) bool {
	at := len(msg) - 2*MACSize
	sum := m.sum(msg[:at])
	return subtle.ConstantTimeCompare(sum[:], msg[at:at+MACSize]) == 1
}

// Sign sets MAC1 of an initiation or response and clears MAC2.
func (m *MAC) Sign(msg []byte) {
	at := len(msg) - 2*MACSize
	sum := m.sum(msg[:at])
	copy(msg[at:], sum[:])
	clear(msg[at+MACSize:])
}

// SignCookie sets MAC2 with a cookie; MAC1 is there already.
func SignCookie(msg []byte, cookie [MACSize]byte) {
	sum := mac2(msg, cookie)
	copy(msg[len(msg)-MACSize:], sum[:])
}

func mac2(msg []byte, cookie [MACSize]byte) (out [MACSize]byte) {
	h, err := blake2s.New128(cookie[:])
	if err != nil {
		panic(err) // the size of the key is right
	}
	h.Write(msg[:len(msg)-MACSize])
	h.Sum(out[:0])
	return out
}

// HasCookie says whether MAC2 is set.
func HasCookie(msg []byte) bool {
	var acc byte
	for _, b := range msg[len(msg)-MACSize:] {
		acc |= b
	}
	return acc != 0
}

// MAC1 is the MAC1 of an initiation or response.
func MAC1(msg []byte) (m [MACSize]byte) {
	copy(m[:], msg[len(msg)-2*MACSize:])
	return m
}

// SetType writes the type word of a message.
func SetType(msg []byte, word uint32) { binary.LittleEndian.PutUint32(msg, word) }

// Type reads the type word of a message.
func Type(msg []byte) uint32 { return binary.LittleEndian.Uint32(msg) }

// Sender is the index that the sender of an initiation or response drew.
func Sender(msg []byte) uint32 { return binary.LittleEndian.Uint32(msg[4:]) }

// Receiver is the index that a response answers.
func Receiver(msg []byte) uint32 { return binary.LittleEndian.Uint32(msg[8:]) }
