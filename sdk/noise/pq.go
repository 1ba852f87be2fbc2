package noise

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
)

// Sizes of the ML-KEM-768 values in Hello and Auth (FIPS 203), in bytes.
const (
	PQKeySize        = mlkem768.PublicKeySize  // 1,184: the encapsulation key ek
	PQCiphertextSize = mlkem768.CiphertextSize // 1,088: the ciphertext ct
)

const pqLabel = "commucat/pq/1"

// Decapsulator is the client's half of a KEM exchange, for one connection.
type Decapsulator struct {
	key *mlkem768.PrivateKey
	ek  [PQKeySize]byte
}

// PQClient makes the client's key pair: ek for the Hello and what opens the
// answer. nil random is crypto/rand. Error kind: KindRandom.
func PQClient(random io.Reader) (ek []byte, secret *Decapsulator, err error) {
	var seed [mlkem768.KeySeedSize]byte
	if err := fill(random, seed[:]); err != nil {
		return nil, nil, err
	}
	public, private := mlkem768.NewKeyFromSeed(seed[:])
	clear(seed[:])
	d := &Decapsulator{key: private}
	public.Pack(d.ek[:])
	return append([]byte(nil), d.ek[:]...), d, nil
}

// PQServer answers ek: ct for the Auth frame and the pre-shared key. Error
// kinds: KindKEM for an ek of the wrong length or not canonical, KindRandom.
func PQServer(ek []byte, random io.Reader) (ct []byte, psk [32]byte, err error) {
	if len(ek) != PQKeySize {
		return nil, psk, ErrKEM
	}
	var public mlkem768.PublicKey
	if err := public.Unpack(ek); err != nil {
		return nil, psk, &Error{Kind: KindKEM, Detail: "encapsulation key", Err: err}
	}
	var seed [mlkem768.EncapsulationSeedSize]byte
	if err := fill(random, seed[:]); err != nil {
		return nil, psk, err
	}
	var shared [mlkem768.SharedKeySize]byte
	ct = make([]byte, PQCiphertextSize)
	public.EncapsulateTo(ct, shared[:], seed[:])
	clear(seed[:])
	psk, err = derivePSK(ek, ct, shared)
	return ct, psk, err
}

// PSK opens the server's ciphertext. A ciphertext of the right length that was
// changed gives another key, as FIPS 203 wants it, and the handshake then fails
// as with any wrong message. Error kind: KindKEM for a wrong length.
func (d *Decapsulator) PSK(ct []byte) (psk [32]byte, err error) {
	if len(ct) != PQCiphertextSize {
		return psk, ErrKEM
	}
	var shared [mlkem768.SharedKeySize]byte
	d.key.DecapsulateTo(shared[:], ct)
	return derivePSK(d.ek[:], ct, shared)
}

// derivePSK is HKDF-SHA256 with ikm = shared, salt = SHA-256(ek | ct).
//
// The two are joined before they are hashed, not fed one after the other:
// circl's AVX2 code leaves the upper halves of the vector registers dirty, which
// makes SHA-NI run some seventy times slower (150 us here) until something
// clears them, and the runtime's copy of more than 256 bytes does.
func derivePSK(ek, ct []byte, shared [32]byte) (psk [32]byte, err error) {
	var joined [PQKeySize + PQCiphertextSize]byte
	copy(joined[copy(joined[:], ek):], ct)
	salt := sha256.Sum256(joined[:])
	key, err := hkdf.Key(sha256.New, shared[:], salt[:], pqLabel, len(psk))
	if err != nil {
		return psk, &Error{Kind: KindKEM, Detail: "derive the pre-shared key", Err: err}
	}
	copy(psk[:], key)
	clear(key)
	return psk, nil
}

// Format prints a name for every verb, so that none shows the key.
func (d *Decapsulator) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "ml-kem-768 decapsulator")
}
