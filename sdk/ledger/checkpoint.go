package ledger

import (
	"crypto/ed25519"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/commucat/commucat/sdk"
)

// Checkpoint states that the chain of a relay had this record. Kept where the
// ledger is not, it shows a chain that was cut off or replaced.
type Checkpoint struct {
	Domain string
	Seq    uint64
	Hash   [32]byte
}

const checkpointLabel = "commucat/checkpoint/1"

// signed is label ‖ 00 ‖ the text before the signature.
func (c Checkpoint) signed() []byte {
	return []byte(checkpointLabel + "\x00" + c.text())
}

func (c Checkpoint) text() string {
	return c.Domain + " " + strconv.FormatUint(c.Seq, 10) + " " + hex.EncodeToString(c.Hash[:])
}

// Sign writes the checkpoint as one line: domain, number, hash and Ed25519
// signature, separated by spaces.
func (c Checkpoint) Sign(key ed25519.PrivateKey) string {
	return c.text() + " " + hex.EncodeToString(ed25519.Sign(key, c.signed()))
}

// ParseCheckpoint reads a signed line and checks its signature. The error has kind
// Invalid, or Denied for a wrong signature.
func ParseCheckpoint(line string, key ed25519.PublicKey) (Checkpoint, error) {
	var c Checkpoint
	parts := strings.Split(strings.TrimSuffix(line, "\n"), " ")
	if len(parts) != 4 || len(line) > 1024 || parts[0] == "" {
		return c, invalid("not a checkpoint")
	}
	seq, err := strconv.ParseUint(parts[1], 10, 64)
	hash, errHash := hex.DecodeString(parts[2])
	signature, errSig := hex.DecodeString(parts[3])
	if err != nil || errHash != nil || errSig != nil || len(hash) != 32 || len(signature) != ed25519.SignatureSize {
		return c, invalid("not a checkpoint")
	}
	c = Checkpoint{Domain: parts[0], Seq: seq, Hash: [32]byte(hash)}
	if strings.Join(parts[:3], " ") != c.text() {
		return Checkpoint{}, invalid("not a checkpoint")
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, c.signed(), signature) {
		return Checkpoint{}, &sdk.Error{Kind: sdk.Denied, Op: "ledger", Text: "the checkpoint's signature is wrong"}
	}
	return c, nil
}
