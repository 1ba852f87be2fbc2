package amnesiawg

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk"
)

// Files of the state folder. All of them are secrets.
const (
	identityFile = "identity.json" // the relay's key and what was drawn
	guestsFile   = "guests.jsonl"  // who may come
	timesFile    = "times"         // when each key last opened a session
)

// identity is what a relay keeps of itself: losing it makes every link worthless.
type identity struct {
	Version int               `json:"version"`
	Private []byte            `json:"private"`
	Drawn   map[string]lot    `json:"drawn"`
	Ports   map[string]uint16 `json:"ports"` // by listener name and place in its list

	folder string // "" keeps nothing
	dirty  bool
}

// lot are parameters that were drawn for a listener.
type lot struct {
	Generation obfs.Generation `json:"generation"`
	Code       []byte          `json:"code"`
}

// loadIdentity reads the identity, or draws one.
func loadIdentity(folder string) (*identity, error) {
	id := &identity{Version: 1, Drawn: map[string]lot{}, Ports: map[string]uint16{}, folder: folder}
	if folder != "" {
		b, err := os.ReadFile(filepath.Join(folder, identityFile))
		switch {
		case err == nil:
			if err := json.Unmarshal(b, id); err != nil || id.Version != 1 || len(id.Private) != 32 {
				return nil, &sdk.Error{Kind: sdk.Corrupt, Op: identityFile, Text: "it is damaged; restore it from a backup, or remove it and make new links"}
			}
			return id, nil
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	id.Private, id.dirty = key.Bytes(), true
	return id, nil
}

// private is the relay's key.
func (id *identity) private() [32]byte { return [32]byte(id.Private) }

// drawn gives the parameters of a listener, drawn when it is new or was drawn for
// another generation.
func (id *identity) drawn(name string, g obfs.Generation) *obfs.Params {
	if l, ok := id.Drawn[name]; ok && l.Generation == g {
		if p, err := obfs.Unmarshal(l.Code); err == nil {
			return p
		}
	}
	p := obfs.Draw(g)
	id.Drawn[name], id.dirty = lot{g, p.Marshal()}, true
	return p
}

// redrawn is drawn for parameters that must suit others: what does not is replaced.
func (id *identity) redrawn(name string) func(obfs.Generation) *obfs.Params {
	first := true
	return func(g obfs.Generation) *obfs.Params {
		if !first {
			delete(id.Drawn, name)
		}
		first = false
		return id.drawn(name, g)
	}
}

// port gives the port that was drawn for the nth address of a listener, 0 if none.
func (id *identity) port(name string, n int) uint16 { return id.Ports[portKey(name, n)] }

func (id *identity) setPort(name string, n int, port uint16) {
	id.Ports[portKey(name, n)], id.dirty = port, true
}

func portKey(name string, n int) string { return fmt.Sprintf("%s/%d", name, n) }

// save writes what has changed.
func (id *identity) save() error {
	if !id.dirty || id.folder == "" {
		return nil
	}
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(id.folder, identityFile), b); err != nil {
		return err
	}
	id.dirty = false
	return nil
}

// replaceFile writes a file so that after a crash it is the old or the new one.
func replaceFile(path string, content []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_ = os.Remove(path + ".new")
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func decodeKey(s string) (k [32]byte, err error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(b) != len(k) {
		return k, errors.New("not 32 bytes in base64")
	}
	return [32]byte(b), nil
}
