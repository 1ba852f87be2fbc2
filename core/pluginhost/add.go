package pluginhost

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Described is what a binary says of one of its plugins.
type Described struct {
	Kind          sdk.Kind
	Name, Version string
	// Protocols are the numbers that it speaks.
	Protocols []int
	Needs     []transport.Need
}

// Describer asks an open binary what it holds; it runs the binary.
type Describer func(ctx context.Context, file *os.File) ([]Described, error)

// AddOptions say how Add enters a binary in the list.
type AddOptions struct {
	// Folder is where it shall lie; empty is its own folder. A binary elsewhere is
	// copied there.
	Folder string
	// Describe is required.
	Describe Describer
	// User is written down for every plugin of the binary, see Entry.User.
	User string
}

// maxBinary bounds a plugin's file.
const maxBinary = 1 << 30

// Add enters the binary at path in the list of its folder, as it is now, and gives
// the entries. What others could write to is taken from them (chmod go-w): adding a
// file is trusting it. Entries of files that are gone are dropped.
func Add(ctx context.Context, path string, o AddOptions) ([]Found, error) {
	if o.Folder == "" {
		o.Folder = filepath.Dir(path)
	}
	in, err := os.Open(path)
	if err != nil {
		return nil, refuse(path, "cannot be opened: %v", bare(err))
	}
	defer in.Close()
	if info, err := in.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > maxBinary {
		return nil, refuse(path, "is no program")
	}
	if isScript(in) {
		return nil, refuse(path, "is a script, and the sandbox executes only programs of this machine's own format: build one program of it and its interpreter, and add that ('commucat plugin check' runs scripts, without a sandbox)")
	}
	all, err := o.Describe(ctx, in)
	if err != nil {
		return nil, refuse(path, "does not describe itself as a plugin: %v", err)
	}
	entries, err := entriesOf(path, all, o)
	if err != nil {
		return nil, err
	}
	if err := tighten(o.Folder); err != nil {
		return nil, err
	}
	f, err := openFolder(o.Folder)
	if err != nil {
		return nil, err
	}
	defer f.close()
	release, err := f.hold()
	if err != nil {
		return nil, err
	}
	defer release()
	sum, err := f.place(path, in, entries[0].File)
	if err != nil {
		return nil, err
	}
	return f.enter(entries, sum)
}

// isScript says whether the kernel would run a file by an interpreter that it names.
func isScript(f *os.File) bool {
	var head [2]byte
	n, _ := f.ReadAt(head[:], 0)
	return string(head[:n]) == "#!"
}

// entriesOf makes the entries of a binary, without their sums.
func entriesOf(path string, all []Described, o AddOptions) ([]Entry, error) {
	if len(all) == 0 {
		return nil, refuse(path, "holds no plugin")
	}
	file := filepath.Base(path)
	if dir, err := filepath.Abs(filepath.Dir(path)); err == nil {
		if to, err := filepath.Abs(o.Folder); err == nil && to != dir {
			file = FileName(all[0].Kind, all[0].Name) // a copy gets the usual name
		}
	}
	var out []Entry
	for _, d := range all {
		best := 0
		for _, n := range d.Protocols {
			if n >= oldestProtocol && n <= newestProtocol {
				best = max(best, n)
			}
		}
		if best == 0 {
			return nil, refuse(path, "speaks plugin protocol %v, this relay %s", d.Protocols, protocols())
		}
		needs, err := needsOf(d.Kind, d.Needs)
		if err != nil {
			return nil, refuse(path, "%v", err)
		}
		e := Entry{
			File: file, Kind: KindName(d.Kind), Name: d.Name, Version: d.Version, Protocol: best, User: o.User,
			Needs: needs, Profile: ProfileName(needs), SHA256: map[string]string{},
		}
		if err := e.check(); err != nil {
			return nil, refuse(path, "%v", err)
		}
		out = append(out, e)
	}
	return out, nil
}

// tighten takes the right to write from group and others.
func tighten(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return refuse(path, "cannot be read: %v", bare(err))
	}
	if info.Mode().Perm()&0o022 == 0 {
		return nil
	}
	if info.Mode()&fs.ModeSticky != 0 {
		return refuse(path, "is a folder for everybody; plugins need one of their own")
	}
	if err := os.Chmod(path, info.Mode().Perm()&^0o022); err != nil {
		return refuse(path, "others may write to it, and that cannot be changed: %v", bare(err))
	}
	return nil
}

// hold keeps other programs from changing the list meanwhile.
func (f *folder) hold() (func(), error) {
	d, err := f.root.Open(".")
	if err != nil {
		return nil, refuse(f.path, "cannot be opened: %v", bare(err))
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		d.Close()
		return nil, refuse(f.path, "cannot be locked: %v", err)
	}
	return func() { d.Close() }, nil
}

// place makes sure that the open file lies in the folder under name, and gives the
// sum of what lies there.
func (f *folder) place(path string, in *os.File, name string) (string, error) {
	info, err := in.Stat()
	if err != nil {
		return "", err
	}
	if there, err := f.root.Stat(name); err == nil && os.SameFile(info, there) {
		if err := tighten(filepath.Join(f.path, name)); err != nil {
			return "", err
		}
		file, err := f.file(name)
		if err != nil {
			return "", err
		}
		defer file.Close()
		return hashOf(file)
	}
	want, err := hashOf(in)
	if err != nil {
		return "", refuse(path, "cannot be read: %v", bare(err))
	}
	err = f.write(name, 0o755, func(w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(in, 0, info.Size()))
		return err
	})
	if err != nil {
		return "", err
	}
	file, err := f.file(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if got, err := hashOf(file); err != nil || got != want {
		return "", refuse(path, "changed while it was copied; try again")
	}
	return want, nil
}

// write replaces a file of the folder; the content is on disk when it returns.
func (f *folder) write(name string, mode os.FileMode, content func(io.Writer) error) (err error) {
	temp := "." + name + "." + rand.Text()[:8]
	defer func() {
		if err != nil {
			err = refuse(filepath.Join(f.path, name), "cannot be written: %v", bare(err))
		}
	}()
	out, err := f.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = content(out)
	err = errors.Join(err, out.Chmod(mode), out.Sync(), out.Close())
	if err == nil {
		err = f.root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, f.root.Remove(temp))
	}
	dir, err := f.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// enter puts the entries into the list with the sum for this platform. The sums of
// other platforms stay while nothing else changes.
func (f *folder) enter(entries []Entry, sum string) ([]Found, error) {
	l, err := f.lock()
	if err != nil {
		return nil, err
	}
	platform := runtime.GOOS + "/" + runtime.GOARCH
	var out []Found
	old := l.Plugins
	l.Plugins = slices.DeleteFunc(slices.Clone(old), func(e Entry) bool {
		gone := !f.has(e.File)
		replaced := e.File == entries[0].File || slices.ContainsFunc(entries, func(n Entry) bool { return n.key() == e.key() })
		return gone || replaced
	})
	for _, e := range entries {
		if i := slices.IndexFunc(old, func(o Entry) bool { return o.key() == e.key() }); i >= 0 {
			if was := old[i]; was.File == e.File && was.Version == e.Version && was.Protocol == e.Protocol && slices.Equal(was.Needs, e.Needs) {
				for p, s := range was.SHA256 {
					e.SHA256[p] = s
				}
			}
			if e.User == "" {
				e.User = old[i].User
			}
		}
		e.SHA256[platform] = sum
		l.Plugins = append(l.Plugins, e)
		out = append(out, Found{Entry: e, Folder: f.path})
	}
	if len(l.Plugins) > maxEntries {
		return nil, refuse(filepath.Join(f.path, LockFile), "holds %d plugins already", maxEntries)
	}
	b, err := l.marshal()
	if err != nil {
		return nil, err
	}
	err = f.write(LockFile, 0o644, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
	return out, err
}
