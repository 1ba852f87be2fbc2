package keyring

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/commucat/commucat/sdk"
)

// sharedFiles change with time, and must be the same at all nodes of one relay.
var sharedFiles = []string{"noise.json", "entry.json", "catalogue"}

// shareLabel derives the key under which they are shared, and is its associated data.
const shareLabel = "commucat keys shared between nodes v1"

// maxShare bounds what Adopt opens: three Noise keys and a catalogue are some KiB.
const maxShare = 256 << 10

// Share gives what rotation changes (Noise keys, entry masters, catalogue), sealed under
// a key that only nodes with the same storage key have.
func (r *Ring) Share() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	files := map[string][]byte{}
	for _, name := range sharedFiles {
		b, err := r.dir.read(name)
		if err != nil {
			return nil, err
		}
		files[name] = b
	}
	plain, err := json.Marshal(files)
	if err != nil {
		return nil, err
	}
	key := derive(r.storage[:], shareLabel)
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, chacha20poly1305.NonceSizeX, chacha20poly1305.NonceSizeX+len(plain)+chacha20poly1305.Overhead)
	if _, err := r.opt.Rand.Read(nonce); err != nil {
		return nil, err
	}
	return aead.Seal(nonce, nonce, plain, []byte(shareLabel)), nil
}

// Adopt takes over what another node shared. newer says that this node has what the
// shared keys lack, and that they should be replaced by Share's: where its Noise keys
// are ahead nothing was taken. Entry masters are never lost: those of both are accepted,
// so that no device is shut out that has a token of one. Keys of another relay are an
// error of kind Denied.
func (r *Ring) Adopt(shared []byte) (newer bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	files, err := r.openShared(shared)
	if err != nil {
		return false, err
	}
	var theirs noiseFile
	if err := json.Unmarshal(files["noise.json"], &theirs); err != nil || len(theirs.Keys) == 0 {
		return false, &sdk.Error{Kind: sdk.Corrupt, Text: "the keys shared between the nodes are damaged"}
	}
	newest := uint32(0)
	for _, k := range theirs.Keys {
		newest = max(newest, k.Version)
	}
	if own := *r.noise.Load(); len(own) > 0 && own[0].Version > newest {
		return true, nil
	}
	if files["entry.json"], newer, err = r.joinMasters(files["entry.json"]); err != nil {
		return false, err
	}
	changed := false
	for _, name := range sharedFiles {
		have, err := r.dir.read(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		if bytes.Equal(have, files[name]) {
			continue
		}
		changed = true
		if err := r.dir.write(name, files[name]); err != nil {
			return false, err
		}
	}
	if !changed {
		return newer, nil
	}
	return newer, errors.Join(r.loadNoise(false), r.loadMasters(false), r.loadCatalogue())
}

// joinMasters adds this node's masters to a shared file. more says that there were any
// that it lacked. mu is held.
func (r *Ring) joinMasters(shared []byte) (file []byte, more bool, err error) {
	var f masterFile
	if err := json.Unmarshal(shared, &f); err != nil {
		return nil, false, &sdk.Error{Kind: sdk.Corrupt, Text: "the keys shared between the nodes are damaged"}
	}
	now := r.opt.Clock()
	for _, m := range *r.masters.Load() {
		row := masterRow{hex.EncodeToString(m.Key), check(m.Key), m.Created}
		has := func(x masterRow) bool { return x.Key == row.Key }
		if m.Created.Add(masterLife).After(now) && !slices.ContainsFunc(f.Masters, has) {
			f.Masters, more = append(f.Masters, row), true
		}
	}
	if !more {
		return shared, false, nil
	}
	file, err = json.Marshal(f)
	return file, true, err
}

func (r *Ring) openShared(shared []byte) (map[string][]byte, error) {
	foreign := &sdk.Error{Kind: sdk.Denied, Text: "the storage belongs to a relay with other keys; copy keys/ and relay.json from one of its nodes into this data folder, or name another storage"}
	if len(shared) < chacha20poly1305.NonceSizeX || len(shared) > maxShare {
		return nil, foreign
	}
	key := derive(r.storage[:], shareLabel)
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return nil, err
	}
	nonce, sealed := shared[:chacha20poly1305.NonceSizeX], shared[chacha20poly1305.NonceSizeX:]
	plain, err := aead.Open(nil, nonce, sealed, []byte(shareLabel))
	if err != nil {
		return nil, foreign
	}
	var files map[string][]byte
	if json.Unmarshal(plain, &files) != nil {
		return nil, foreign
	}
	for _, name := range sharedFiles {
		if len(files[name]) == 0 {
			return nil, foreign
		}
	}
	return files, nil
}
