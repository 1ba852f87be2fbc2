package obfs

import (
	"crypto/ecdh"
	"crypto/hmac"
	"hash"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
)

// Names that the Noise transcript begins with (WireGuard white paper, section 5.4).
const (
	construction = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
	identifier   = "WireGuard v1 zx2c4 Jason@zx2c4.com"
)

// Places in an initiation.
const (
	atEphemeral = 8
	atStatic    = atEphemeral + 32
	atTimestamp = atStatic + 32 + 16
	stampSize   = 12
)

// A Stamp is a TAI64N label: greater is later, byte by byte.
type Stamp [stampSize]byte

// After says whether s is later than t.
func (s Stamp) After(t Stamp) bool { return string(s[:]) > string(t[:]) }

// A Reader opens the first message of the handshake as far as the initiator's
// static key and its time, without taking part in the handshake. It may be used
// concurrently.
type Reader struct {
	private   *ecdh.PrivateKey
	chain     [32]byte // chaining key at the beginning
	hash      [32]byte // transcript with our public key
	zeroNonce [chacha20poly1305.NonceSize]byte
}

// NewReader makes a reader for the owner of a private key.
func NewReader(private [32]byte) (*Reader, error) {
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return nil, err
	}
	r := &Reader{private: key, chain: blake2s.Sum256([]byte(construction))}
	r.hash = mix(mix(r.chain, []byte(identifier)), key.PublicKey().Bytes())
	return r, nil
}

// Public is the owner's public key.
func (r *Reader) Public() [32]byte { return [32]byte(r.private.PublicKey().Bytes()) }

// Opened is what an initiation says of its sender.
type Opened struct {
	Static [32]byte
	// chain and hash are the transcript before the timestamp.
	chain, hash [32]byte
}

// Static opens the initiator's static key. It costs one X25519; whoever knows our
// public key can make an initiation that opens.
func (r *Reader) Static(msg []byte) (o Opened, ok bool) {
	ephemeral := msg[atEphemeral:atStatic]
	o.hash = mix(r.hash, ephemeral)
	chain := kdf1(r.chain, ephemeral)
	shared, err := r.shared([32]byte(ephemeral))
	if err != nil {
		return Opened{}, false
	}
	chain, key := kdf2(chain, shared[:])
	sealed := msg[atStatic:atTimestamp]
	if !r.open(o.Static[:0], key, sealed, o.hash[:]) {
		return Opened{}, false
	}
	o.hash, o.chain = mix(o.hash, sealed), chain
	return o, true
}

// Time opens the timestamp, which proves that the sender owns the static key (or
// repeats a message of the owner). shared is Shared(o.Static).
func (r *Reader) Time(msg []byte, o Opened, shared [32]byte) (s Stamp, ok bool) {
	_, key := kdf2(o.chain, shared[:])
	ok = r.open(s[:0], key, msg[atTimestamp:atTimestamp+stampSize+16], o.hash[:])
	return s, ok
}

// Shared is the X25519 of our private key and a public one; an error where that
// is zero.
func (r *Reader) Shared(public [32]byte) ([32]byte, error) { return r.shared(public) }

func (r *Reader) shared(public [32]byte) (s [32]byte, err error) {
	k, err := ecdh.X25519().NewPublicKey(public[:])
	if err != nil {
		return s, err
	}
	b, err := r.private.ECDH(k)
	if err != nil {
		return s, err
	}
	return [32]byte(b), nil
}

func (r *Reader) open(dst []byte, key [32]byte, sealed, ad []byte) bool {
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic(err) // the size of the key is right
	}
	_, err = aead.Open(dst, r.zeroNonce[:], sealed, ad)
	return err == nil
}

func mix(h [32]byte, data []byte) [32]byte {
	return blake2s.Sum256(append(append(make([]byte, 0, 128), h[:]...), data...))
}

func newBlake2s() hash.Hash {
	h, err := blake2s.New256(nil)
	if err != nil {
		panic(err) // there is no key
	}
	return h
}

func hmac1(key []byte, parts ...[]byte) (out [32]byte) {
	m := hmac.New(newBlake2s, key)
	for _, p := range parts {
		m.Write(p)
	}
	m.Sum(out[:0])
	return out
}

// kdf1 and kdf2 are HKDF (RFC 5869) with BLAKE2s, of one and two outputs.
func kdf1(chain [32]byte, input []byte) [32]byte {
	prk := hmac1(chain[:], input)
	return hmac1(prk[:], []byte{1})
}

func kdf2(chain [32]byte, input []byte) (a, b [32]byte) {
	prk := hmac1(chain[:], input)
	a = hmac1(prk[:], []byte{1})
	b = hmac1(prk[:], a[:], []byte{2})
	return a, b
}
