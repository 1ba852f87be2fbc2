package reality

import (
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// shortIDSize is the most bytes of a short id; shorter ones are padded with zeros
// at the end.
const shortIDSize = 8

// shortID names who may come: one for a deployment, or one for each guest.
type shortID [shortIDSize]byte

// parseShortID reads 0 to 16 hexadecimal digits, an even number of them.
func parseShortID(text string) (shortID, error) {
	var id shortID
	if len(text) > 2*shortIDSize || len(text)%2 != 0 {
		return id, fmt.Errorf("short id %q is not an even number of hexadecimal digits, 16 at most", text)
	}
	if _, err := hex.Decode(id[:], []byte(text)); err != nil {
		return id, fmt.Errorf("short id %q is not hexadecimal", text)
	}
	return id, nil
}

func (id shortID) String() string { return hex.EncodeToString(id[:]) }

// encodeKey is the text form of both halves of a key: unpadded URL-safe base64.
func encodeKey(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func decodeKey(text string) ([]byte, error) {
	text = strings.TrimRight(strings.TrimSpace(text), "=")
	text = strings.NewReplacer("+", "-", "/", "_").Replace(text)
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != 32 {
		return nil, errors.New("not 32 bytes in base64")
	}
	return b, nil
}

// parsePrivate reads a private key; the text never enters an error.
func parsePrivate(text string) (*ecdh.PrivateKey, error) {
	b, err := decodeKey(text)
	if err != nil {
		return nil, err
	}
	return ecdh.X25519().NewPrivateKey(b)
}

func parsePublic(text string) (*ecdh.PublicKey, error) {
	b, err := decodeKey(text)
	if err != nil {
		return nil, err
	}
	return ecdh.X25519().NewPublicKey(b)
}

// Draft is what is drawn for a new server, by the server itself where its table names no
// key.
type Draft struct {
	// PrivateKey is the text of a key file, with a line end. It is a secret.
	PrivateKey []byte
	// PublicKey and ShortIDs go into links; the first short id is everybody's.
	PublicKey string
	ShortIDs  []string
}

// drawnIDs is how many short ids a Draft has: one to use, others to change to.
const drawnIDs = 4

// Draw makes a key and short ids from random, which must be a cryptographic source
// (crypto/rand.Reader).
func Draw(random io.Reader) (Draft, error) {
	var seed [32]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return Draft{}, fmt.Errorf("reality: draw a key: %w", err)
	}
	key, err := ecdh.X25519().NewPrivateKey(seed[:])
	if err != nil {
		return Draft{}, fmt.Errorf("reality: draw a key: %w", err)
	}
	d := Draft{PrivateKey: []byte(encodeKey(key.Bytes()) + "\n"), PublicKey: encodeKey(key.PublicKey().Bytes())}
	for range drawnIDs {
		id, err := drawShortID(random)
		if err != nil {
			return Draft{}, fmt.Errorf("reality: draw a short id: %w", err)
		}
		d.ShortIDs = append(d.ShortIDs, id.String())
	}
	return d, nil
}

func drawShortID(random io.Reader) (shortID, error) {
	var id shortID
	_, err := io.ReadFull(random, id[:])
	return id, err
}

// Table is the configuration table that goes with the draft: keyRef is the reference
// of the key file ("file:keys/reality.key"), cover "self" or "host:port", names the
// server names that clients show.
func (d Draft) Table(keyRef, cover string, names []string) map[string]any {
	return map[string]any{
		"cover": cover, "server_names": names, "private_key": keyRef, "short_ids": d.ShortIDs,
	}
}

// Rotate gives the table with a new key in use and the former one still accepted, so
// that links made before go on to work until the operator removes it from
// "old_private_keys". newRef is where the new key was written; table is left alone.
func Rotate(table map[string]any, newRef string) (map[string]any, error) {
	current, ok := table["private_key"].(string)
	if !ok || current == "" {
		return nil, errors.New("reality: rotate: the table has no private_key")
	}
	if current == newRef {
		return nil, errors.New("reality: rotate: the new key must be written to another file than the current one")
	}
	out := make(map[string]any, len(table)+1)
	for k, v := range table {
		out[k] = v
	}
	old := []any{current}
	switch list := table["old_private_keys"].(type) {
	case []any:
		old = append(old, list...)
	case []string:
		for _, ref := range list {
			old = append(old, ref)
		}
	}
	if len(old) > maxKeys-1 {
		old = old[:maxKeys-1]
	}
	out["private_key"], out["old_private_keys"] = newRef, old
	return out, nil
}
