package reality

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/commucat/commucat/sdk"
)

// drawnName is the file in the state folder that holds the key and the short ids of a
// server whose table names none.
const drawnName = "drawn.json"

type drawn struct {
	PrivateKey string   `json:"private_key"`
	ShortIDs   []string `json:"short_ids"`
}

// keptDraft draws once for a state folder, and gives the same from then on. Several
// processes may ask at once; all get what the first one drew.
func keptDraft(folder string) (Draft, error) {
	if folder == "" {
		return Draft{}, &sdk.ConfigError{Key: "private_key", Text: "and short_ids are required where there is no state folder to keep drawn ones in"}
	}
	path := filepath.Join(folder, drawnName)
	if d, err := readDraft(path); !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	d, err := Draw(rand.Reader)
	if err != nil {
		return Draft{}, err
	}
	b, err := json.Marshal(drawn{PrivateKey: strings.TrimSpace(string(d.PrivateKey)), ShortIDs: d.ShortIDs})
	if err != nil {
		return Draft{}, err
	}
	f, err := os.CreateTemp(folder, drawnName+"-*") // 0600
	if err != nil {
		return Draft{}, err
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Link(f.Name(), path) // fails if another was first
	}
	_ = os.Remove(f.Name())
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return Draft{}, err
	}
	return readDraft(path)
}

func readDraft(path string) (Draft, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Draft{}, err
	}
	var in drawn
	key, err := parsePrivate("")
	if json.Unmarshal(b, &in) == nil {
		key, err = parsePrivate(in.PrivateKey)
	}
	if err != nil || len(in.ShortIDs) == 0 {
		return Draft{}, &sdk.Error{Kind: sdk.Corrupt, Op: "reality: " + path, Text: "holds no key and short ids; restore it from a backup, or remove it and make all links anew"}
	}
	return Draft{PrivateKey: []byte(in.PrivateKey), PublicKey: encodeKey(key.PublicKey().Bytes()), ShortIDs: in.ShortIDs}, nil
}
