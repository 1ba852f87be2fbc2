package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// folderPrefix begins the names of private folders.
const folderPrefix = "cct-"

// sweepAge is how old a folder must be to be swept.
const sweepAge = time.Minute

// folder is the private folder of one process, for its control socket. It is locked as
// long as this process lives, so that a later one can tell what was left behind.
type folder struct {
	path string
	lock *os.File
}

// privateFolder makes one.
func privateFolder(o Options) (_ *folder, err error) {
	path, err := os.MkdirTemp(o.Runtime, folderPrefix)
	if err != nil {
		return nil, err
	}
	f := &folder{path: path}
	defer func() {
		if err != nil {
			f.remove()
		}
	}()
	// go-plugin adds two names of up to 30 bytes.
	if len(path)+60 > 107 {
		return nil, fmt.Errorf("the folder %s has too long a name for a socket in it: set a shorter one", path)
	}
	if f.lock, err = lockFolder(path); err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	if o.Owner != nil {
		if err := os.Chown(path, o.Owner.UID, o.Owner.GID); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (f *folder) remove() {
	os.RemoveAll(f.path)
	if f.lock != nil {
		f.lock.Close()
	}
}

// lockFolder takes the lock or fails at once.
func lockFolder(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweep removes private folders whose processes were killed. Only those of this user
// and of the plugin's are touched, and none that has just been made: its maker may not
// have locked it yet.
func sweep(o Options, now time.Time) {
	dir := o.Runtime
	if dir == "" {
		dir = os.TempDir()
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // making a folder there will say why
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), folderPrefix) {
			continue
		}
		if info, err := e.Info(); err != nil || now.Sub(info.ModTime()) < sweepAge {
			continue
		}
		path := filepath.Join(dir, e.Name())
		lock, err := lockFolder(path)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(int(lock.Fd()), &st) == nil && (int(st.Uid) == os.Geteuid() || o.Owner != nil && int(st.Uid) == o.Owner.UID) {
			os.RemoveAll(path)
		}
		lock.Close()
	}
}
