package tiles

import (
	"errors"
	"os"
	"path/filepath"
)

// folders writes files atomically and remembers whose folders must reach the disk.
type folders struct {
	dir     string
	touched map[string]struct{}
	// doubtful folders may be there without their names being on disk.
	doubtful bool
}

// write replaces a file; its content is on disk when it returns, its name after
// sync.
func (f *folders) write(name string, b []byte) error {
	path := filepath.Join(f.dir, filepath.FromSlash(name))
	if err := f.make(filepath.Dir(path)); err != nil {
		return err
	}
	tmp := path + ".new"
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(b)
	err = errors.Join(err, file.Sync())
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	f.touch(filepath.Dir(path))
	return nil
}

// make makes a folder and those above it; their names count as touched.
func (f *folders) make(dir string) error {
	if _, err := os.Stat(dir); err == nil && !f.doubtful {
		return nil
	}
	for up := dir; len(up) > len(f.dir); up = filepath.Dir(up) {
		f.touch(filepath.Dir(up))
	}
	return os.MkdirAll(dir, 0o700)
}

func (f *folders) touch(dir string) {
	if f.touched == nil {
		f.touched = map[string]struct{}{}
	}
	f.touched[dir] = struct{}{}
}

// sync brings the names of everything written to disk.
func (f *folders) sync() error {
	for dir := range f.touched {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	f.touched = nil
	return nil
}
