package pluginhost

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// folder is an open folder of plugins. Everything in it is opened through it, so that
// another folder under the same name is never mixed in.
type folder struct {
	path string
	root *os.Root
}

// openFolder opens and checks a folder; one that is not there is fs.ErrNotExist.
func openFolder(path string) (*folder, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			return nil, fs.ErrNotExist
		}
		return nil, refuse(path, "the folder cannot be read: %v", bare(err))
	}
	f := &folder{path, root}
	info, err := root.Stat(".")
	if err == nil {
		err = trusted(path, info)
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *folder) close() { _ = f.root.Close() } // read only

// has says that something of this name lies in the folder.
func (f *folder) has(name string) bool {
	_, err := f.root.Lstat(name)
	return err == nil
}

// file opens a regular file of the folder after checking who can change it.
func (f *folder) file(name string) (*os.File, error) {
	path := filepath.Join(f.path, name)
	info, err := f.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse(path, "the file is in the list but not there; reinstall it")
	}
	if err != nil {
		return nil, refuse(path, "cannot be read: %v", bare(err))
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil, refuse(path, "is a symbolic link; put the file itself there")
	}
	// Without following a link and without waiting, should it have been swapped since.
	file, err := f.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, refuse(path, "cannot be opened: %v", bare(err))
	}
	opened, err := file.Stat()
	if err == nil && !os.SameFile(info, opened) {
		err = refuse(path, "was exchanged while it was being opened; try again")
	}
	if err == nil && !opened.Mode().IsRegular() {
		err = refuse(path, "is not a regular file")
	}
	if err == nil {
		err = trusted(path, opened)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// lock reads the folder's list; none is an empty one.
func (f *folder) lock() (lock, error) {
	if !f.has(LockFile) {
		return lock{}, nil
	}
	file, err := f.file(LockFile)
	if err != nil {
		return lock{}, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxLock+1))
	if err != nil {
		return lock{}, refuse(filepath.Join(f.path, LockFile), "cannot be read: %v", bare(err))
	}
	l, err := parseLock(b)
	if err != nil {
		return lock{}, refuse(filepath.Join(f.path, LockFile), "%v; make it again with 'commucat plugin add'", err)
	}
	return l, nil
}

// trusted refuses what somebody else than root and the relay's user could change.
func trusted(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return refuse(path, "others may write to it (mode %04o); run 'chmod go-w %s'", mode, path)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return refuse(path, "its owner is not known")
	}
	if uid := int(st.Uid); uid != 0 && uid != os.Geteuid() {
		return refuse(path, "belongs to user %d, who could change it; run 'chown root %s'", uid, path)
	}
	return nil
}

// bare leaves out a path that the message names.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return fmt.Errorf("%w", err)
}
