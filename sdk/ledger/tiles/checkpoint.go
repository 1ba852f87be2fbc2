package tiles

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/commucat/commucat/sdk"
)

// maxCheckpoint bounds a signed checkpoint with its cosignatures.
const maxCheckpoint = 64 << 10

// Checkpoint is a tree head (c2sp.org/tlog-checkpoint).
type Checkpoint struct {
	// Origin names the log; it is the name of its key as well.
	Origin string
	Size   int64
	Root   [32]byte
}

// Text is the note's text, with its last line end.
func (c Checkpoint) Text() string {
	return c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

// parseText reads the three lines of a checkpoint. Extension lines are not
// accepted: this log writes none, and they are not recommended.
func parseText(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" || lines[0] == "" {
		return Checkpoint{}, corrupt("the checkpoint is not three lines")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return Checkpoint{}, corrupt("the checkpoint's size %q is no number", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, corrupt("the checkpoint's hash is malformed")
	}
	return Checkpoint{Origin: lines[0], Size: size, Root: [32]byte(root)}, nil
}

// ParseCheckpoint verifies a signed checkpoint by the log's key ("NAME+ID+KEY") and
// by those of its witnesses, and says which of them signed. The error has kind
// Denied for a wrong or missing signature of the log, else Corrupt or Invalid.
func ParseCheckpoint(signed []byte, key string, witnesses ...string) (c Checkpoint, by []string, err error) {
	if len(signed) > maxCheckpoint {
		return c, nil, corrupt("the checkpoint is longer than 64 KiB")
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		return c, nil, failure(sdk.Invalid, "the log's key is malformed", nil)
	}
	verifiers := []note.Verifier{v}
	for _, w := range witnesses {
		v, err := newWitness(w)
		if err != nil {
			return c, nil, err
		}
		verifiers = append(verifiers, v)
	}
	n, err := note.Open(signed, note.VerifierList(verifiers...))
	if err != nil {
		var unverified *note.UnverifiedNoteError
		var invalid *note.InvalidSignatureError
		if errors.As(err, &unverified) || errors.As(err, &invalid) {
			return c, nil, failure(sdk.Denied, "the checkpoint's signature is wrong", nil)
		}
		return c, nil, corrupt("the checkpoint is malformed")
	}
	if c, err = parseText(n.Text); err != nil {
		return c, nil, err
	}
	own := false
	for _, s := range n.Sigs {
		if s.Name == v.Name() && s.Hash == v.KeyHash() {
			own = true
			continue
		}
		by = append(by, s.Name)
	}
	if !own || c.Origin != v.Name() {
		return Checkpoint{}, nil, failure(sdk.Denied, fmt.Sprintf("the checkpoint is not signed by %s", v.Name()), nil)
	}
	return c, by, nil
}
