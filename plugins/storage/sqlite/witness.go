package sqlite

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// witness remembers what Pebble's manifests held when they were last synced. Pebble
// takes a damaged record in a manifest for one that a crash cut short, goes back to
// an older state and deletes what that does not know. With the witness this is seen
// before Pebble touches anything.
//
// It is a file of lines "NAME LENGTH CRC-32C" for the newest two manifests, written
// after each sync of a manifest and not synced itself: manifests only grow, so an
// older witness is true as well.
type witness struct {
	path string
	mu   sync.Mutex
	seen []witnessed
}

type witnessed struct {
	name   string
	length int64
	sum    uint32
}

// note records the state of a manifest.
func (w *witness) note(s witnessed) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.seen); n > 0 && w.seen[n-1].name == s.name {
		w.seen[n-1] = s
	} else {
		w.seen = append(w.seen[max(0, n-1):], s)
	}
	var b strings.Builder
	for _, s := range w.seen {
		fmt.Fprintf(&b, "%s %d %08x\n", s.name, s.length, s.sum)
	}
	if err := os.WriteFile(w.path+".new", []byte(b.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(w.path+".new", w.path)
}

// check compares the manifests in dir with the witness. Lines that cannot be read
// say nothing.
func (w *witness) check(dir string) error {
	b, err := os.ReadFile(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		var s witnessed
		if _, err := fmt.Sscanf(line, "%s %d %x\n", &s.name, &s.length, &s.sum); err != nil {
			continue
		}
		have, err := os.ReadFile(filepath.Join(dir, filepath.Base(s.name)))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // a newer one has taken its place
		case err != nil:
			return err
		case int64(len(have)) < s.length || crc32.Checksum(have[:s.length], castagnoli) != s.sum:
			return corrupt(dir + ": the list of tables is damaged; restore the folder from a backup")
		}
		w.seen = append(w.seen, s)
	}
	return nil
}

// manifest is a manifest that is being written.
type manifest struct {
	vfs.File
	witness *witness
	at      witnessed
}

func (m *manifest) Write(b []byte) (int, error) {
	n, err := m.File.Write(b)
	m.at.length += int64(n)
	m.at.sum = crc32.Update(m.at.sum, castagnoli, b[:n])
	return n, err
}

func (m *manifest) Sync() error {
	if err := m.File.Sync(); err != nil {
		return err
	}
	return m.witness.note(m.at)
}

func (m *manifest) SyncData() error {
	if err := m.File.SyncData(); err != nil {
		return err
	}
	return m.witness.note(m.at)
}
