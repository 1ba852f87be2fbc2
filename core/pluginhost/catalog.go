package pluginhost

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/commucat/commucat/sdk"
)

// SystemFolder is where a distribution puts plugins.
const SystemFolder = "/usr/lib/commucat/plugins"

// Catalog finds plugins in folders. It keeps nothing open; all methods may be called
// concurrently.
type Catalog struct {
	folders  []string
	platform string
}

// NewCatalog looks in the folders named, in this order: of two plugins with one kind
// and name the first counts. A folder that is not there holds nothing.
func NewCatalog(folders ...string) *Catalog {
	return &Catalog{folders: folders, platform: runtime.GOOS + "/" + runtime.GOARCH}
}

// DefaultFolders are the folder of the running program and SystemFolder.
func DefaultFolders() []string {
	self, err := os.Executable()
	if err != nil {
		return []string{SystemFolder}
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	return []string{filepath.Dir(self), SystemFolder}
}

// Folders are where the catalog looks.
func (c *Catalog) Folders() []string { return slices.Clone(c.folders) }

// Found is an entry and where it lies.
type Found struct {
	Entry
	Folder string `json:"folder"`
}

// Path is the binary's place.
func (f Found) Path() string { return filepath.Join(f.Folder, f.File) }

// Refusal is why a plugin may not run: one line that says what to do.
type Refusal struct {
	// Plugin is "transport pt", or a file or folder.
	Plugin string
	Text   string
}

// Error is "transport pt: …".
func (r *Refusal) Error() string { return r.Plugin + ": " + r.Text }

// Is makes a Refusal an sdk error of kind Denied.
func (r *Refusal) Is(target error) bool { return target == error(sdk.Denied) }

func refuse(plugin, format string, args ...any) error {
	return &Refusal{Plugin: plugin, Text: fmt.Sprintf(format, args...)}
}

// List gives every entry that may be looked up, sorted by kind and name. A folder
// whose list cannot be used is in the error; the others' entries are given all the
// same.
func (c *Catalog) List() ([]Found, error) {
	var out []Found
	var errs []error
	seen := map[string]bool{}
	for _, dir := range c.folders {
		f, err := openFolder(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l, err := f.lock()
		f.close()
		if err != nil {
			errs = append(errs, err)
		}
		for _, e := range l.Plugins {
			if !seen[e.key()] {
				seen[e.key()] = true
				out = append(out, Found{Entry: e, Folder: dir})
			}
		}
	}
	slices.SortFunc(out, func(a, b Found) int { return strings.Compare(a.key(), b.key()) })
	return out, errors.Join(errs...)
}

// Binary is a plugin's file: open, checked and hashed. What runs is this descriptor,
// whatever happens to the name meanwhile.
type Binary struct {
	Found
	File *os.File
}

// Close lets go of the file.
func (b *Binary) Close() error { return b.File.Close() }

// Check hashes the descriptor again: its owner can change a file in place.
func (b *Binary) Check() error {
	sum, err := hashOf(b.File)
	if err != nil {
		return refuse(b.key(), "%s cannot be read: %v", b.Path(), err)
	}
	return b.compare(sum)
}

func (b *Binary) compare(sum string) error {
	if sum != b.SHA256[runtime.GOOS+"/"+runtime.GOARCH] {
		return refuse(b.key(), "%s is not the file that was added; reinstall it, or run 'commucat plugin add %s' if the change is meant", b.Path(), b.Path())
	}
	return nil
}

// Open finds a plugin and opens its file after every check. The error is a *Refusal
// or says what could not be read.
func (c *Catalog) Open(kind sdk.Kind, name string) (*Binary, error) {
	plugin := KindName(kind) + " " + name
	file := FileName(kind, name)
	unlisted := ""
	for _, dir := range c.folders {
		f, err := openFolder(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		b, listed, err := f.find(plugin)
		if !listed && unlisted == "" && f.has(file) {
			unlisted = filepath.Join(dir, file)
		}
		f.close()
		if listed || err != nil {
			return b, err
		}
	}
	if unlisted != "" {
		return nil, refuse(plugin, "%s is not in the list; run 'commucat plugin add %s' if it is to be trusted", unlisted, unlisted)
	}
	return nil, refuse(plugin, "there is no such plugin in %s", strings.Join(c.folders, " or "))
}

// find opens the plugin if the folder lists it.
func (f *folder) find(plugin string) (*Binary, bool, error) {
	l, err := f.lock()
	if err != nil {
		return nil, false, err
	}
	i := slices.IndexFunc(l.Plugins, func(e Entry) bool { return e.key() == plugin })
	if i < 0 {
		return nil, false, nil
	}
	b, err := f.open(l.Plugins[i])
	return b, true, err
}

// open opens and checks an entry's file.
func (f *folder) open(e Entry) (_ *Binary, err error) {
	plugin, path := e.key(), filepath.Join(f.path, e.File)
	if _, ok := e.SHA256[runtime.GOOS+"/"+runtime.GOARCH]; !ok {
		return nil, refuse(plugin, "%s was added for another platform than %s/%s; run 'commucat plugin add %s' here", path, runtime.GOOS, runtime.GOARCH, path)
	}
	if e.Protocol < oldestProtocol || e.Protocol > newestProtocol {
		return nil, refuse(plugin, "it speaks plugin protocol %d, this relay %s; install a version of the plugin that fits", e.Protocol, protocols())
	}
	file, err := f.file(e.File)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	b := &Binary{Found: Found{Entry: e, Folder: f.path}, File: file}
	return b, b.Check()
}

func protocols() string {
	if oldestProtocol == newestProtocol {
		return fmt.Sprint(newestProtocol)
	}
	return fmt.Sprintf("%d to %d", oldestProtocol, newestProtocol)
}

// hashOf reads the whole file from its beginning, whatever its offset is.
func hashOf(f *os.File) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(yielding{h}, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// yielding lets others run after each piece: a plugin that ends again and again must not
// hold up sessions with its hashing.
type yielding struct{ io.Writer }

func (y yielding) Write(p []byte) (int, error) {
	runtime.Gosched()
	return y.Writer.Write(p)
}

// Verdict is what Verify says of one plugin or file.
type Verdict struct {
	Found
	// Err is nil if it may run.
	Err error
}

// Verify checks every entry and names binaries that no list holds.
func (c *Catalog) Verify() ([]Verdict, error) {
	list, err := c.List()
	errs := []error{err}
	var out []Verdict
	listed := map[string]bool{}
	for _, found := range list {
		v := Verdict{Found: found}
		if b, err := c.Open(kindOf(found.Kind), found.Name); err != nil {
			v.Err = err
		} else {
			b.Close()
		}
		listed[found.Path()] = true
		out = append(out, v)
	}
	for _, f := range c.lying() {
		if path := f.Path(); !listed[path] {
			out = append(out, Verdict{
				Found: f,
				Err:   refuse(path, "is in no list and does not run; run 'commucat plugin add %s' if it is to be trusted, or remove it", path),
			})
		}
	}
	return out, errors.Join(errs...)
}

// Untrusted gives what lies in the folders under a plugin's name and is in no list that
// can be used. None of it runs, but who names it in a configuration made no mistake there.
func (c *Catalog) Untrusted() []Found {
	list, _ := c.List() // the lists that can be used
	return slices.DeleteFunc(c.lying(), func(f Found) bool {
		return slices.ContainsFunc(list, func(l Found) bool { return l.key() == f.key() })
	})
}

// lying are the files that are called like plugins.
func (c *Catalog) lying() (out []Found) {
	for _, dir := range c.folders {
		names, err := fs.Glob(os.DirFS(dir), "commucat-*")
		if err != nil {
			continue // the pattern is right
		}
		for _, name := range names {
			if kind, plugin := splitFileName(name); kind != "" {
				out = append(out, Found{Entry: Entry{File: name, Kind: kind, Name: plugin}, Folder: dir})
			}
		}
	}
	return out
}

// splitFileName reads commucat-KIND-NAME; kind is empty for anything else.
func splitFileName(file string) (kind, name string) {
	rest, ok := strings.CutPrefix(file, "commucat-")
	if !ok {
		return "", ""
	}
	kind, name, _ = strings.Cut(rest, "-")
	if kindOf(kind) == 0 || !validName(name) {
		return "", ""
	}
	return kind, name
}
