package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Marks of own messages.
const (
	markWaits   = "…"
	markStored  = "✓"
	markRefused = "✗"
)

// Bounds of what chat keeps and shows.
const (
	historyFile  = "chat.jsonl"
	maxHistory   = 1 << 20 // bytes that are read, and left when the file is cut
	maxEntries   = 1000
	maxShown     = 16 << 10 // bytes of one message
	historyLimit = 4 * maxHistory
)

// entry is one message on the screen: a JSON line of the history. A later line with
// the same key replaces an earlier one.
type entry struct {
	Key  string    `json:"key"`
	Time time.Time `json:"time"`
	From string    `json:"from,omitempty"` // account; "" is this one
	To   string    `json:"to,omitempty"`
	Text string    `json:"text"`
	Mark string    `json:"mark,omitempty"`
}

// history is chat.jsonl of a profile.
type history struct {
	file    *os.File
	entries []entry
}

// openHistory reads the newest entries. A file that has grown too long is cut.
func openHistory(dir string) (*history, error) {
	name := filepath.Join(dir, historyFile)
	b, whole, err := tail(name)
	if err != nil {
		return nil, err
	}
	h := new(history)
	for line := range bytes.Lines(b) {
		var e entry
		if json.Unmarshal(line, &e) == nil && e.Key != "" {
			h.entries = put(h.entries, e)
		}
	}
	if whole > historyLimit {
		if err := rewrite(name, b); err != nil {
			return nil, fmt.Errorf("the history cannot be cut: %w", err)
		}
	}
	if h.file, err = os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("the history cannot be written: %w", err)
	}
	return h, nil
}

// tail reads the last maxHistory bytes, from the beginning of a line on.
func tail(name string) (b []byte, size int64, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	from := max(0, st.Size()-maxHistory)
	b, err = io.ReadAll(io.NewSectionReader(f, from, maxHistory))
	if i := bytes.IndexByte(b, '\n'); from > 0 && i >= 0 {
		b = b[i+1:]
	}
	return b, st.Size(), err
}

func rewrite(name string, b []byte) error {
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// add writes an entry; one write, so that a crash leaves whole lines.
func (h *history) add(e entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err = h.file.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("the history cannot be written: %w", err)
	}
	return nil
}

func (h *history) close() error { return h.file.Close() }

// put replaces the entry with that key, or adds it; the oldest go.
func put(all []entry, e entry) []entry {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Key == e.Key {
			all[i] = e
			return all
		}
	}
	if len(all) >= maxEntries {
		all = all[1:]
	}
	return append(all, e)
}
