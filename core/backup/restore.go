package backup

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
)

// nameOf checks the name of an archive's file: it must lie within a folder.
func nameOf(h *tar.Header) (string, error) {
	name, ok := strings.CutPrefix(h.Name, filesPrefix)
	if h.Typeflag == tar.TypeDir {
		name = strings.TrimSuffix(name, "/")
	}
	if !ok || h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir || name == "" || name == "." || len(name) > maxName || strings.ContainsAny(name, "\\\x00") ||
		!filepath.IsLocal(filepath.FromSlash(name)) || filepath.ToSlash(filepath.Clean(name)) != name {
		return "", fmt.Errorf("it holds %.100q, which is no file of a data folder", h.Name)
	}
	return name, nil
}

// Restore makes dir from an archive. dir must be empty or absent; it gets its name when
// everything has been read and checked, and stays as it was after an error. layout is
// the newest layout of a data folder that the caller knows. An archive of keys is put
// into a folder that has none yet.
func Restore(ctx context.Context, r io.Reader, by []age.Identity, dir string, layout int) (Info, Manifest, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Info{}, Manifest{}, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return Info{}, Manifest{}, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".restoring-")
	if err != nil {
		return Info{}, Manifest{}, err
	}
	defer os.RemoveAll(tmp)
	k := &folder{dir: dir, tmp: tmp, layout: layout}
	info, m, err := read(ctx, r, by, k)
	if err == nil {
		err = k.finish()
	}
	return info, m, err
}

// folder is a data folder that is being made.
type folder struct {
	dir, tmp string
	layout   int
	into     bool // keys, into a folder that is there
	top      []string
}

// begin refuses before anything is written.
func (k *folder) begin(info Info) error {
	if info.Layout > k.layout {
		return fmt.Errorf("the archive is of a newer relay (layout %d, this one knows %d); install that version", info.Layout, k.layout)
	}
	list, err := os.ReadDir(k.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(list) == 0 {
		return nil
	}
	if info.Keys == OnlyKeys {
		if _, err := os.Lstat(filepath.Join(k.dir, keysFolder)); errors.Is(err, fs.ErrNotExist) {
			k.into = true
			return nil
		}
	}
	return fmt.Errorf("%s is not empty; restore into a new folder", k.dir)
}

func (k *folder) file(h *tar.Header, name string, r io.Reader) error {
	path := filepath.Join(k.tmp, filepath.FromSlash(name))
	k.note(name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(h.Mode).Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	err = errors.Join(err, give(f, h))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (k *folder) folder(h *tar.Header, name string) error {
	path := filepath.Join(k.tmp, filepath.FromSlash(name))
	k.note(name)
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(give(d, h), d.Chmod(fs.FileMode(h.Mode).Perm()|0o700), d.Close())
}

// note remembers what stands directly in the folder.
func (k *folder) note(name string) {
	if !strings.Contains(name, "/") {
		k.top = append(k.top, name)
	}
}

// finish gives the folder its name.
func (k *folder) finish() error {
	if k.into {
		for _, name := range k.top {
			to := filepath.Join(k.dir, name)
			if _, err := os.Lstat(to); err == nil {
				continue // relay.json stands in both parts
			}
			if err := os.Rename(filepath.Join(k.tmp, name), to); err != nil {
				return err
			}
		}
		return sync(k.dir)
	}
	if err := os.Remove(k.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(k.tmp, k.dir); err != nil {
		return err
	}
	return sync(filepath.Dir(k.dir))
}

func sync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
