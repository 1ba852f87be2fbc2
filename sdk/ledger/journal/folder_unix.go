//go:build unix

package journal

import (
	"errors"
	"os"
	"syscall"

	"github.com/commucat/commucat/sdk"
)

// lockFolder takes the folder for this process alone.
func lockFolder(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fail(sdk.Unavailable, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, conflict("%s is in use by another process", path)
		}
		return nil, fail(sdk.Unavailable, err)
	}
	return f, nil
}

// syncFolder makes a new file's name durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
