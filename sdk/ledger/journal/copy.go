package journal

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/commucat/commucat/sdk"
)

// Copy makes dir, which is not there yet, a journal that holds what this one holds: it
// ends after some record, whatever is being appended meanwhile. Files that grow no more
// are linked where the file system can.
func (j *Journal) Copy(dir string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return errClosed
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fail(sdk.Unavailable, err)
	}
	for i, s := range j.segments {
		to := filepath.Join(dir, filepath.Base(s.path))
		if i < len(j.segments)-1 && os.Link(s.path, to) == nil {
			continue
		}
		if err := copyHead(s.path, to, s.size); err != nil {
			return fail(sdk.Unavailable, err)
		}
	}
	if err := syncFolder(dir); err != nil {
		return fail(sdk.Unavailable, err)
	}
	return nil
}

// copyHead copies the first bytes of a file.
func copyHead(from, to string, size int64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(out, in, size)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}
