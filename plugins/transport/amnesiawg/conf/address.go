package conf

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"net/netip"

	"golang.org/x/crypto/blake2s"
)

// Name is the transport's name.
const Name = "amnesiawg"

// Port is the relay's TCP port inside the tunnel, which nobody else sees.
const Port = 443

// Labels that keep hashes of different purpose apart.
const (
	labelNetwork = "commucat/amnesiawg/network/1"
	labelHost    = "commucat/amnesiawg/host/1"
	labelKey     = "commucat/amnesiawg/key/1"
)

// network is the first 48 bits of every address inside a relay's tunnel: a unique
// local prefix (RFC 4193) made of the relay's key.
func network(server [32]byte) (a [16]byte) {
	h := blake2s.Sum256(append([]byte(labelNetwork), server[:]...))
	a[0] = 0xfd
	copy(a[1:6], h[:])
	return a
}

// ServerAddr is the relay's address inside its tunnel.
func ServerAddr(server [32]byte) netip.Addr {
	a := network(server)
	a[15] = 1
	return netip.AddrFrom16(a)
}

// ClientAddr is the address inside a relay's tunnel of the owner of a key. No other
// key has it, so that a packet's source, which WireGuard vouches for, proves the key.
func ClientAddr(server, client [32]byte) netip.Addr {
	a := network(server)
	h := blake2s.Sum256(append(append([]byte(labelHost), server[:]...), client[:]...))
	copy(a[6:], h[:])
	return netip.AddrFrom16(a)
}

// PublicKey is the public half of a key pair.
func PublicKey(private [32]byte) ([32]byte, error) {
	k, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return [32]byte{}, err
	}
	return [32]byte(k.PublicKey().Bytes()), nil
}

// NewKey draws a device's key pair.
func NewKey() (private, public []byte, err error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	private = k.Bytes()
	private[0] &= 248 // as other programs write keys (RFC 7748, section 5)
	private[31] = private[31]&127 | 64
	return private, k.PublicKey().Bytes(), nil
}

// KeysPerLink is how many key pairs a link's secret makes: WireGuard knows one place
// for each key, so that people who come by one link at the same time need several.
const KeysPerLink = 16

// LinkKey is one of the private keys that a link's secret makes.
func LinkKey(secret [32]byte, n int) ([32]byte, error) {
	if n < 0 || n >= KeysPerLink {
		return [32]byte{}, errors.New("a link has no such key")
	}
	h, err := blake2s.New256(secret[:])
	if err != nil {
		return [32]byte{}, err
	}
	h.Write([]byte(labelKey))
	h.Write([]byte{byte(n)})
	k := [32]byte(h.Sum(nil))
	// X25519 does this itself (RFC 7748, section 5); other programs compare keys.
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k, nil
}
