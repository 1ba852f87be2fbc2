package onion

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
)

const guestsFile = "guests.json"

// person is a guest in the file. The token is kept as its hash.
type person struct {
	ID      string    `json:"id"`
	Public  []byte    `json:"public"`
	Token   []byte    `json:"token"`
	Expires time.Time `json:"expires,omitzero"`
}

func (p person) gone(now time.Time) bool { return !p.Expires.IsZero() && !now.Before(p.Expires) }

// guests are those who may come, on disk before their invitation is given out.
type guests struct {
	path string // "" keeps them in memory
	most int
	now  func() time.Time

	mu   sync.Mutex
	all  map[string]person
	hash map[[sha256.Size]byte]string // of a token: whose it is
	news uint64                       // counts changes of the keys

	nobody []byte // a key that nobody has
}

// maxGuestsFile bounds the file: 300 guests need some 100 KiB.
const maxGuestsFile = 1 << 20

func openGuests(folder string, most int, now func() time.Time) (*guests, error) {
	g := &guests{most: most, now: now, all: map[string]person{}, hash: map[[sha256.Size]byte]string{}}
	if folder == "" {
		return g, nil
	}
	g.path = filepath.Join(folder, guestsFile)
	info, err := os.Stat(g.path)
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err != nil || info.Size() > maxGuestsFile {
		return nil, &sdk.Error{Kind: sdk.Corrupt, Op: guestsFile, Text: "cannot be read, or is too large", Err: err}
	}
	b, err := os.ReadFile(g.path)
	if err != nil {
		return nil, err
	}
	var list []person
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, &sdk.Error{Kind: sdk.Corrupt, Op: guestsFile, Err: err}
	}
	for _, p := range list {
		if len(p.Token) == sha256.Size && len(p.Public) == 32 {
			g.put(p)
		}
	}
	return g, nil
}

func (g *guests) put(p person) {
	if old, ok := g.all[p.ID]; ok {
		delete(g.hash, [sha256.Size]byte(old.Token))
	}
	g.all[p.ID] = p
	g.hash[[sha256.Size]byte(p.Token)] = p.ID
}

// add lets a guest in; an earlier invitation of the same one ends.
func (g *guests) add(id string, public, token []byte, expires time.Time) error {
	sum := sha256.Sum256(token)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweep()
	if _, known := g.all[id]; !known && len(g.all) >= g.most {
		return &sdk.Error{Kind: sdk.Full, Op: "onion", Text: fmt.Sprintf("%d guests are authorised already: revoke some, or set authorise = false", g.most)}
	}
	if old, known := g.all[id]; !known || !bytes.Equal(old.Public, public) {
		g.news++
	}
	g.put(person{ID: id, Public: public, Token: sum[:], Expires: expires})
	return g.save()
}

// remove takes a guest out; false is one that is not known.
func (g *guests) remove(id string) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p, ok := g.all[id]
	if !ok {
		return false, nil
	}
	delete(g.all, id)
	delete(g.hash, [sha256.Size]byte(p.Token))
	g.news++
	return true, g.save()
}

// changes counts how often the keys have changed.
func (g *guests) changes() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.news
}

// who finds the guest of a token. Tokens are compared as hashes, so that the time of
// the look-up tells nothing.
func (g *guests) who(token []byte) (string, bool) {
	sum := sha256.Sum256(token)
	g.mu.Lock()
	defer g.mu.Unlock()
	id, ok := g.hash[sum]
	if !ok || g.all[id].gone(g.now()) {
		return "", false
	}
	return id, true
}

// sweep forgets those whose time is over; g.mu is held.
func (g *guests) sweep() {
	now := g.now()
	for id, p := range g.all {
		if p.gone(now) {
			delete(g.all, id)
			delete(g.hash, [sha256.Size]byte(p.Token))
		}
	}
}

func (g *guests) save() error {
	if g.path == "" {
		return nil
	}
	list := make([]person, 0, len(g.all))
	for _, p := range g.all {
		list = append(list, p)
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return replace(g.path, b)
}

// replace writes a file anew, for the owner alone; it is on disk when it returns.
func replace(path string, content []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// keys are the public keys of all guests, and one that nobody has.
func (g *guests) keys() [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweep()
	if g.nobody == nil {
		if k, err := ecdh.X25519().GenerateKey(rand.Reader); err == nil {
			g.nobody = k.PublicKey().Bytes()
		}
	}
	out := [][]byte{g.nobody}
	for _, p := range g.all {
		out = append(out, p.Public)
	}
	return out
}

const authFolder = "authorized_clients"

// write makes tor's folder of authorised clients (one file each, "descriptor:x25519:"
// and the key in base32). Without any, the descriptor would be open to all: a key that
// nobody has stands there always; anew is to draw another one.
func (g *guests) write(service string, anew bool) error {
	dir := filepath.Join(service, authFolder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	g.mu.Lock()
	g.sweep()
	want := map[string][]byte{}
	for id, p := range g.all {
		sum := sha256.Sum256([]byte(id))
		want[hex.EncodeToString(sum[:8])+".auth"] = p.Public
	}
	g.mu.Unlock()
	nobody, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "nobody.auth")); err != nil || anew {
		want["nobody.auth"] = nobody.PublicKey().Bytes()
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range there {
		if want[e.Name()] == nil && e.Name() != "nobody.auth" {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for name, public := range want {
		if err := replace(filepath.Join(dir, name), []byte("descriptor:x25519:"+base32Of(public)+"\n")); err != nil {
			return err
		}
	}
	return nil
}

// base32Of is base32 as tor writes keys: without padding.
func base32Of(b []byte) string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b)
}

// validAddress says that s is an onion address of version 3 without ".onion".
func validAddress(s string) bool {
	b, err := base32.StdEncoding.DecodeString(strings.ToUpper(s))
	return err == nil && len(s) == 56 && b[34] == 3
}
