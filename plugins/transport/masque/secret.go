package masque

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/quic-go/quic-go"

	"github.com/commucat/commucat/sdk"
)

// Files of the state folder.
const (
	secretFile  = "secret"  // 32 random bytes, from which all keys are derived
	revokedFile = "revoked" // see revoked.go
	certFile    = "self-signed.pem"
)

// secrets are the keys that must survive a restart: links stay good, and a peer
// that the restart cut off learns of it by a stateless reset (RFC 9000 section
// 10.3) instead of waiting for its idle time.
type secrets struct {
	vouch  []byte // MACs of key ids
	link   []byte // private keys of links
	bearer []byte // bearer tokens
	reset  quic.StatelessResetKey
	token  quic.TokenGeneratorKey
}

// openSecrets reads the secret of a state folder, or draws it where the folder is
// new.
func openSecrets(dir string) (*secrets, error) {
	if dir == "" {
		return nil, &sdk.Error{Kind: sdk.Invalid, Text: "it needs a state folder"}
	}
	name := filepath.Join(dir, secretFile)
	root, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, revokedFile)); err == nil {
			return nil, &sdk.Error{Kind: sdk.Corrupt, Text: fmt.Sprintf("%s is missing; restore it from a backup, or remove %s too, which makes every link useless", name, revokedFile)}
		}
		root = make([]byte, 32)
		_, _ = rand.Read(root) // never fails
		err = writeFile(name, root)
	}
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	if len(root) != 32 {
		return nil, &sdk.Error{Kind: sdk.Corrupt, Text: fmt.Sprintf("%s has %d bytes instead of 32; restore it from a backup", name, len(root))}
	}
	derive := func(label string) []byte {
		key, err := hkdf.Key(sha256.New, root, nil, "commucat masque "+label, 32)
		if err != nil {
			panic(err) // only for lengths that SHA-256 cannot give
		}
		return key
	}
	s := &secrets{vouch: derive("key id 1"), link: derive("link 1"), bearer: derive("bearer 1")}
	copy(s.reset[:], derive("stateless reset 1"))
	copy(s.token[:], derive("address token 1"))
	return s, nil
}

// writeFile writes a file that only this user reads, whole or not at all.
func writeFile(name string, content []byte) error {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncFolder(dir)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
