package tlog

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/commucat/commucat/sdk"
)

// keyFile holds the signing key and, on its second line, the public one.
const keyFile = "key"

type key struct {
	signer note.Signer
	public string
}

// openKey reads the log's key, or makes it at the first start under the name origin,
// or under a drawn one. A log keeps its name: another origin is refused.
func openKey(dir, origin string) (key, error) {
	name := filepath.Join(dir, keyFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(name, origin)
	}
	if err != nil {
		return key{}, err
	}
	private, public, _ := strings.Cut(strings.TrimSuffix(string(b), "\n"), "\n")
	signer, errSigner := note.NewSigner(private)
	verifier, errVerifier := note.NewVerifier(public)
	if errSigner != nil || errVerifier != nil || verifier.KeyHash() != signer.KeyHash() || verifier.Name() != signer.Name() {
		return key{}, &sdk.Error{Kind: sdk.Corrupt, Text: name + " is damaged; restore it from a backup, for checkpoints in use name it"}
	}
	if origin != "" && signer.Name() != origin {
		return key{}, &sdk.Error{Kind: sdk.Invalid, Text: "origin: this log is named " + signer.Name() + "; keep the name, or begin another log in an empty folder"}
	}
	return key{signer, public}, nil
}

func makeKey(name, origin string) (key, error) {
	if origin == "" {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return key{}, err
		}
		origin = "audit-" + hex.EncodeToString(b[:])
	}
	private, public, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return key{}, err
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		return key{}, err
	}
	return key{signer, public}, writeKey(name, private+"\n"+public+"\n", 0o600)
}

// publishKey writes the public half where it is not there already: a full disk is no
// reason to lose it.
func publishKey(name, text string) error {
	if b, err := os.ReadFile(name); err == nil && string(b) == text {
		return nil
	}
	return writeKey(name, text, 0o644)
}

// writeKey leaves the old file or the new one.
func writeKey(name, text string, mode fs.FileMode) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync())
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name+".new"))
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
