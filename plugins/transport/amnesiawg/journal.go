package amnesiawg

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/commucat/commucat/plugins/transport/amnesiawg/internal/obfs"
	"github.com/commucat/commucat/sdk"
)

const (
	// maxJournal bounds the file that is read.
	maxJournal = 1 << 30
	// slack is how many lines a journal has beyond two for each guest before it is
	// written anew.
	slack = 1000
)

// entry is a line of the journal: the last one of an id counts.
type entry struct {
	ID     string `json:"id"`
	Gone   bool   `json:"gone,omitempty"`
	Secret []byte `json:"secret,omitempty"`
	Keys   []byte `json:"keys,omitempty"`  // public, one after the other
	Until  int64  `json:"until,omitempty"` // Unix seconds
}

func (g *guest) entry() entry {
	e := entry{ID: g.id, Keys: bytes.Join(slicesOf(g.keys), nil)}
	if g.secret != nil {
		e.Secret = g.secret[:]
	}
	if !g.expires.IsZero() {
		e.Until = g.expires.Unix()
	}
	return e
}

func slicesOf(keys [][32]byte) [][]byte {
	out := make([][]byte, len(keys))
	for i := range keys {
		out[i] = keys[i][:]
	}
	return out
}

// replay takes a line of the journal over and says whether it could be one.
func (r *registry) replay(e entry) bool {
	r.drop(e.ID)
	if e.Gone {
		return e.ID != ""
	}
	if e.ID == "" || len(e.Keys) == 0 || len(e.Keys)%32 != 0 || e.Secret != nil && len(e.Secret) != 32 {
		return false
	}
	g := &guest{id: e.ID}
	for k := e.Keys; len(k) > 0; k = k[32:] {
		g.keys = append(g.keys, [32]byte(k))
	}
	g.last = make([]obfs.Stamp, len(g.keys))
	if e.Secret != nil {
		g.secret = (*[32]byte)(e.Secret)
	}
	if e.Until != 0 {
		g.expires = time.Unix(e.Until, 0)
	}
	r.insert(g)
	return true
}

// entries are what a fresh journal holds.
func (r *registry) entries() []entry {
	out := make([]entry, 0, len(r.byID))
	for _, g := range r.byID {
		if !g.visitor {
			out = append(out, g.entry())
		}
	}
	return out
}

// journal is the file of guests: lines of JSON, appended and synced.
type journal struct {
	path  string
	f     *os.File
	size  int64 // of whole lines
	lines int
}

func openJournal(folder string, replay func(entry) bool) (*journal, error) {
	j := &journal{path: filepath.Join(folder, guestsFile)}
	f, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err = j.read(f, replay); err == nil {
		// What a crash has left half written is cut off.
		err = f.Truncate(j.size)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	j.f = f
	return j, nil
}

// read replays the lines up to the last whole one.
func (j *journal) read(f *os.File, replay func(entry) bool) error {
	in := bufio.NewReaderSize(io.LimitReader(f, maxJournal), 1<<16)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var e entry
		if json.Unmarshal(line, &e) != nil || !replay(e) {
			return &sdk.Error{Kind: sdk.Corrupt, Op: guestsFile, Text: "a line in it is damaged; restore it from a backup, or remove it and invite devices anew"}
		}
		j.size += int64(len(line))
		j.lines++
	}
}

// add appends lines that are on the disk when add returns. What could not be written
// whole is cut off by the next one.
func (j *journal) add(entries ...entry) error {
	b, err := linesOf(entries)
	if err != nil {
		return err
	}
	if err := j.f.Truncate(j.size); err != nil {
		return err
	}
	if _, err := j.f.WriteAt(b, j.size); err != nil {
		return err
	}
	if err := j.f.Sync(); err != nil {
		return err
	}
	j.size += int64(len(b))
	j.lines += len(entries)
	return nil
}

func linesOf(entries []entry) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, e := range entries {
		if err := enc.Encode(e); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// grown says that most lines are about guests that are gone or have changed.
func (j *journal) grown(guests int) bool { return j.lines >= 2*guests+slack }

// compact writes the journal anew.
func (j *journal) compact(entries []entry) error {
	b, err := linesOf(entries)
	if err != nil {
		return err
	}
	if err := replaceFile(j.path, b); err != nil {
		return err
	}
	f, err := os.OpenFile(j.path, os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_ = j.f.Close()
	j.f, j.size, j.lines = f, int64(len(b)), len(entries)
	return nil
}

func (j *journal) close() error { return j.f.Close() }

// saveTimes writes when each key last opened a session. What a crash loses lets a
// recorded handshake of the last minutes open a session once more, with nobody at
// its other end.
func (r *registry) saveTimes() error {
	r.saving.Lock()
	defer r.saving.Unlock()
	return r.writeTimes()
}

// writeTimes is called with saving held.
func (r *registry) writeTimes() error {
	r.mu.Lock()
	if r.log == nil || !r.times {
		r.mu.Unlock()
		return nil
	}
	r.times = false
	var b bytes.Buffer
	for _, g := range r.byID {
		for i, s := range g.last {
			if s != (obfs.Stamp{}) && !g.visitor {
				b.Write(g.keys[i][:])
				b.Write(s[:])
			}
		}
	}
	path := filepath.Join(filepath.Dir(r.log.path), timesFile)
	r.mu.Unlock()
	return replaceFile(path, b.Bytes())
}

// loadTimes reads them; a damaged file is as none.
func (r *registry) loadTimes() error {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(r.log.path), timesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	const size = 32 + len(obfs.Stamp{})
	for ; len(b) >= size; b = b[size:] {
		r.advance([32]byte(b), obfs.Stamp(b[32:size]))
	}
	r.times = false
	return nil
}

// text of a key for people and logs: its first characters.
func keyText(public [32]byte) string { return base64.StdEncoding.EncodeToString(public[:])[:8] }
