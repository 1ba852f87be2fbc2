package reality

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Layout of the sealed session id, as XTLS REALITY has it. It lies in an ordinary
// ClientHello (RFC 8446 section 4.1.2) at offset 39 of the handshake message:
//
//	key         HKDF-SHA-256(X25519(client share, server key), salt random[0:20], info "REALITY"), 32 bytes
//	nonce       random[20:32]
//	data        the handshake message with the session id zeroed
//	plaintext   version 3 | zero 1 | Unix seconds, big endian 4 | short id 8
//	session id  AES-256-GCM: ciphertext 16 | tag 16
const (
	randomOffset  = 6
	sessionOffset = 39
	sessionSize   = 32
	claimSize     = 16
	sealInfo      = "REALITY"
)

// claim is what a client says of itself in the session id.
type claim struct {
	version version
	time    time.Time // whole seconds
	id      shortID
}

// version is what a client announces; servers may refuse low ones.
type version [3]byte

// currentVersion is what current servers of the protocol accept.
var currentVersion = version{26, 7, 28}

func (v version) String() string {
	return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2])
}

func parseVersion(text string) (version, error) {
	var v version
	parts := strings.Split(text, ".")
	if len(parts) != len(v) {
		return v, fmt.Errorf("version %q is not three numbers such as 26.7.28", text)
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 8)
		if err != nil {
			return v, fmt.Errorf("version %q is not three numbers from 0 to 255", text)
		}
		v[i] = byte(n)
	}
	return v, nil
}

// deriveKey is the key of one hello, which also proves the server.
func deriveKey(private *ecdh.PrivateKey, public *ecdh.PublicKey, hello []byte) ([]byte, error) {
	shared, err := private.ECDH(public) // refuses points of small order
	if err != nil {
		return nil, err
	}
	salt := hello[randomOffset : randomOffset+20]
	return hkdf.Key(sha256.New, shared, salt, sealInfo, 32)
}

func sealer(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func nonceOf(hello []byte) []byte { return hello[randomOffset+20 : randomOffset+32] }

// sealClaim gives the session id for a hello whose session id is zero.
func sealClaim(key, hello []byte, c claim) ([]byte, error) {
	aead, err := sealer(key)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, claimSize)
	copy(plain, c.version[:])
	binary.BigEndian.PutUint32(plain[4:], uint32(c.time.Unix()))
	copy(plain[8:], c.id[:])
	return aead.Seal(nil, nonceOf(hello), plain, hello), nil
}

var errNotOurs = errors.New("the session id was not sealed for this key")

// openClaim reads the session id of a hello that parseClientHello has accepted.
func openClaim(key, hello []byte) (claim, error) {
	aead, err := sealer(key)
	if err != nil {
		return claim{}, err
	}
	data := append([]byte{}, hello...)
	clear(data[sessionOffset : sessionOffset+sessionSize])
	plain, err := aead.Open(nil, nonceOf(hello), hello[sessionOffset:sessionOffset+sessionSize], data)
	if err != nil {
		return claim{}, errNotOurs
	}
	return claim{
		version: version(plain[:3]),
		time:    time.Unix(int64(binary.BigEndian.Uint32(plain[4:])), 0),
		id:      shortID(plain[8:]),
	}, nil
}

// proves reports whether a leaf certificate was made by the holder of the server's
// key for this very handshake: an Ed25519 certificate whose signature is
// HMAC-SHA-512(key, public key).
func proves(key []byte, leaf *x509.Certificate) bool {
	public, ok := leaf.PublicKey.(ed25519.PublicKey)
	if !ok {
		return false
	}
	mac := hmac.New(sha512.New, key)
	mac.Write(public)
	return hmac.Equal(mac.Sum(nil), leaf.Signature)
}
