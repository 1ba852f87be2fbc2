package pluginhost

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/commucat/commucat/sdk"
)

// LockFile is the name of the list in a folder of plugins.
const LockFile = "plugins.lock"

// Limits of the list.
const (
	maxLock    = 1 << 20
	maxEntries = 256
	lockLayout = 1
)

// Entry is one plugin that may run. A binary with several plugins has several.
type Entry struct {
	// File is the binary's name in the list's folder.
	File string `json:"file"`
	// Kind is "transport", "storage" or "ledger".
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Version string `json:"version"`
	// Protocol is the plugin protocol that the plugin speaks.
	Protocol int `json:"protocol"`
	// SHA256 are the sums by platform ("linux/amd64"), in hex.
	SHA256 map[string]string `json:"sha256"`
	// User is the user that the plugin runs as where the relay is root; empty is one
	// of its own.
	User string `json:"user,omitempty"`
	// Profile is the sandbox's, see ProfileName; it follows from Needs.
	Profile string `json:"profile"`
	// Needs are granted: "tcp-port", "udp-port", "outbound", "program:NAME",
	// "program:$KEY|NAME…" (see transport.Program), "state-folder", "cover". A plugin
	// that asks for more is refused.
	Needs []string `json:"needs"`
}

// key names an entry.
func (e Entry) key() string { return e.Kind + " " + e.Name }

// lock is the content of a plugins.lock.
type lock struct {
	Layout  int     `json:"layout"`
	Plugins []Entry `json:"plugins"`
}

// parseLock reads and checks a list; errors name what is wrong, not the file.
func parseLock(b []byte) (lock, error) {
	var l lock
	if len(b) > maxLock {
		return l, errors.New("larger than 1 MiB")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return lock{}, fmt.Errorf("no list of plugins: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return lock{}, errors.New("something follows the list")
	}
	if l.Layout != lockLayout {
		return lock{}, fmt.Errorf("layout %d is not known to this version", l.Layout)
	}
	if len(l.Plugins) > maxEntries {
		return lock{}, fmt.Errorf("more than %d plugins", maxEntries)
	}
	seen := map[string]bool{}
	for _, e := range l.Plugins {
		if err := e.check(); err != nil {
			return lock{}, err
		}
		if seen[e.key()] {
			return lock{}, fmt.Errorf("%s stands there twice", e.key())
		}
		seen[e.key()] = true
	}
	return l, nil
}

// marshal writes the list, sorted, one plugin after the other.
func (l lock) marshal() ([]byte, error) {
	l.Layout = lockLayout
	slices.SortFunc(l.Plugins, func(a, b Entry) int { return strings.Compare(a.key(), b.key()) })
	if l.Plugins == nil {
		l.Plugins = []Entry{}
	}
	b, err := json.MarshalIndent(l, "", "  ")
	return append(b, '\n'), err
}

func (e Entry) check() error {
	switch {
	case kindOf(e.Kind) == 0:
		return fmt.Errorf("%q is no kind of plugin", e.Kind)
	case !validName(e.Name):
		return fmt.Errorf("%q is no name of a plugin: 1 to 32 of a-z 0-9 -", e.Name)
	case e.File == "" || e.File != filepath.Base(e.File) || e.File == "." || e.File == ".." || len(e.File) > 128:
		return fmt.Errorf("%s: %q is no name of a file", e.key(), e.File)
	case e.Protocol < 1:
		return fmt.Errorf("%s: protocol %d", e.key(), e.Protocol)
	case len(e.Version) > 64 || len(e.User) > 64:
		return fmt.Errorf("%s: version or user is too long", e.key())
	}
	for platform, sum := range e.SHA256 {
		if b, err := hex.DecodeString(sum); err != nil || len(b) != 32 {
			return fmt.Errorf("%s: the sum for %s is no SHA-256 in hex", e.key(), platform)
		}
	}
	for _, n := range e.Needs {
		if !validNeed(n) {
			return fmt.Errorf("%s: need %q is not known", e.key(), n)
		}
	}
	if want := ProfileName(e.Needs); e.Profile != want {
		return fmt.Errorf("%s: profile %q does not fit its needs (%q)", e.key(), e.Profile, want)
	}
	return nil
}

// kinds are the words for the kinds.
func kinds() map[string]sdk.Kind {
	return map[string]sdk.Kind{"transport": sdk.Transport, "storage": sdk.Storage, "ledger": sdk.Ledger}
}

// kindOf reads a word; 0 is none.
func kindOf(word string) sdk.Kind { return kinds()[word] }

// KindName is the word for a kind in lists and file names.
func KindName(k sdk.Kind) string {
	for word, kind := range kinds() {
		if kind == k {
			return word
		}
	}
	return "plugin"
}

// validName is the rule for names in configuration files.
func validName(s string) bool {
	for i := range len(s) {
		if (s[i] < 'a' || s[i] > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// FileName is how a plugin's binary is called: commucat-KIND-NAME.
func FileName(kind sdk.Kind, name string) string { return "commucat-" + KindName(kind) + "-" + name }

// PluginKind is the entry's kind.
func (e Entry) PluginKind() sdk.Kind { return kindOf(e.Kind) }
