package keyring

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxFile bounds what is read of a key file.
const maxFile = 64 << 10

// folder is the keys' folder.
type folder string

// openFolder makes the folder, and refuses one that others may enter.
func openFolder(dir string) (folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("key folder %s cannot be made: %w", dir, cause(err))
	}
	st, err := os.Stat(dir)
	if err != nil {
		return "", fmt.Errorf("key folder %s: %w", dir, cause(err))
	}
	if st.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("key folder %s is open to other users; run 'chmod 700 %s'", dir, dir)
	}
	return folder(dir), nil
}

func (f folder) name(file string) string { return filepath.Join(string(f), file) }

func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// read gives a file's content; fs.ErrNotExist is passed on.
func (f folder) read(file string) ([]byte, error) {
	name := f.name(file)
	fh, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("key file %s cannot be read: %w", name, cause(err))
	}
	defer fh.Close()
	st, err := fh.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", name, cause(err))
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key file %s is readable by other users; run 'chmod 600 %s' and consider the key known", name, name)
	}
	b, err := io.ReadAll(io.LimitReader(fh, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("key file %s cannot be read: %w", name, cause(err))
	}
	if len(b) > maxFile {
		return nil, f.damaged(file)
	}
	return b, nil
}

func (f folder) damaged(file string) error {
	return fmt.Errorf("key file %s is damaged; restore it from a backup (a new key would lock out every device)", f.name(file))
}

// write replaces a file.
func (f folder) write(file string, b []byte) (err error) {
	name := f.name(file)
	tmp := name + "." + rand.Text()[:8]
	fh, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("key file %s cannot be written: %w", name, cause(err))
	}
	_, err = fh.Write(b)
	if err == nil {
		err = fh.Sync()
	}
	err = errors.Join(err, fh.Close())
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("key file %s cannot be written: %w", name, cause(err))
	}
	dir, err := os.Open(string(f))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// key reads 32 bytes as hex, or draws and stores them.
func (f folder) key(file string, random io.Reader) (k [32]byte, made bool, err error) {
	b, err := f.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := io.ReadFull(random, k[:]); err != nil {
			return k, false, err
		}
		return k, true, f.write(file, []byte(hex.EncodeToString(k[:])+"\n"))
	}
	if err != nil {
		return k, false, err
	}
	text := strings.TrimSpace(string(b))
	if len(text) != 64 {
		return k, false, f.damaged(file)
	}
	if _, err := hex.Decode(k[:], []byte(text)); err != nil {
		return k, false, f.damaged(file)
	}
	return k, false, nil
}

// object reads a JSON file; ok is false when there is none.
func (f folder) object(file string, v any) (ok bool, err error) {
	b, err := f.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if json.Unmarshal(b, v) != nil {
		return false, f.damaged(file)
	}
	return true, nil
}

func (f folder) putObject(file string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return f.write(file, append(b, '\n'))
}
