package journal

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/commucat/commucat/sdk"
)

// Copy makes dir, which is not there yet, a journal that holds what this one held when it
// was called: it ends after some record. Appending goes on meanwhile, and Trim removes
// nothing. Files that grow no more are linked where the file system can.
func (j *Journal) Copy(dir string) error {
	files, err := j.holdFiles()
	if err != nil {
		return err
	}
	defer func() {
		j.mu.Lock()
		j.copies--
		j.mu.Unlock()
	}()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fail(sdk.Unavailable, err)
	}
	for _, f := range files {
		to := filepath.Join(dir, filepath.Base(f.path))
		if !f.grows && os.Link(f.path, to) == nil {
			continue
		}
		if err := copyHead(f.path, to, f.size); err != nil {
			return fail(sdk.Unavailable, err)
		}
	}
	if err := syncFolder(dir); err != nil {
		return fail(sdk.Unavailable, err)
	}
	return nil
}

// heldFile is a file of which the first size bytes stay as they are.
type heldFile struct {
	path  string
	size  int64
	grows bool
}

// holdFiles lists the files with records, and keeps Trim from removing them.
func (j *Journal) holdFiles() ([]heldFile, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, errClosed
	}
	var out []heldFile
	for i, s := range j.segments {
		if s.size > 0 {
			out = append(out, heldFile{s.path, s.size, i == len(j.segments)-1})
		}
	}
	j.copies++
	return out, nil
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
