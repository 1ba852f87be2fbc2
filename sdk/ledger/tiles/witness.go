package tiles

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/commucat/commucat/sdk"
)

// algorithmCosignature is the key type of cosignature/v1
// (c2sp.org/tlog-cosignature).
const algorithmCosignature = 4

// witness verifies cosignature/v1: Ed25519 over
//
//	"cosignature/v1\n" "time " seconds "\n" note text
//
// with the signature bytes time u64 big endian ‖ signature 64.
type witness struct {
	name string
	id   uint32
	key  ed25519.PublicKey
}

var _ note.Verifier = (*witness)(nil)

// newWitness reads a witness's key, "NAME+ID+KEY" with key type 4.
func newWitness(vkey string) (*witness, error) {
	bad := failure(sdk.Invalid, fmt.Sprintf("%q is not the key of a witness (NAME+ID+KEY of type 4)", vkey), nil)
	name, rest, _ := strings.Cut(vkey, "+")
	idText, keyText, _ := strings.Cut(rest, "+")
	id, err := strconv.ParseUint(idText, 16, 32)
	if err != nil || len(idText) != 8 || name == "" || strings.ContainsAny(name, " \t\n") {
		return nil, bad
	}
	key, err := base64.StdEncoding.DecodeString(keyText)
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != algorithmCosignature {
		return nil, bad
	}
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	if binary.BigEndian.Uint32(sum[:]) != uint32(id) {
		return nil, bad
	}
	return &witness{name: name, id: uint32(id), key: key[1:]}, nil
}

func (w *witness) Name() string    { return w.name }
func (w *witness) KeyHash() uint32 { return w.id }

func (w *witness) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	m := append([]byte("cosignature/v1\ntime "+strconv.FormatUint(at, 10)+"\n"), msg...)
	return ed25519.Verify(w.key, m, sig[8:])
}

// CheckWitness says what is wrong with a witness's key.
func CheckWitness(key string) error {
	_, err := newWitness(key)
	return err
}
