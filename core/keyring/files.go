package keyring

import (
	"crypto/rand"
	"crypto/sha256"
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

// beginFile stands in a folder whose first keys are being made. Without it a
// missing file is an error: a new key would lock out every device.
const beginFile = "incomplete"

// openFolder makes the folder, and refuses one that others may enter. fresh
// says that its first keys have yet to be made, in whole or in part; finish
// ends that.
func openFolder(dir string) (f folder, fresh bool, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", false, fmt.Errorf("key folder %s cannot be made: %w", dir, cause(err))
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return "", false, fmt.Errorf("key folder %s: %w", dir, cause(err))
	}
	switch {
	case !st.IsDir():
		return "", false, fmt.Errorf("key folder %s is not a folder", dir)
	case st.Mode().Perm()&0o077 != 0:
		return "", false, fmt.Errorf("key folder %s is open to other users; run 'chmod 700 %s'", dir, dir)
	case foreign(st):
		return "", false, fmt.Errorf("key folder %s belongs to another user; run 'chown -R' or start as that user", dir)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return "", false, fmt.Errorf("key folder %s cannot be read: %w", dir, cause(err))
	}
	f = folder(dir)
	if len(list) == 0 {
		return f, true, f.write(beginFile, nil)
	}
	_, err = os.Lstat(f.name(beginFile))
	return f, err == nil, nil
}

// finish says that all first keys are there.
func (f folder) finish() error {
	if err := os.Remove(f.name(beginFile)); err != nil {
		return fmt.Errorf("key file %s cannot be removed: %w", f.name(beginFile), cause(err))
	}
	return f.sync()
}

func (f folder) sync() error {
	d, err := os.Open(string(f))
	if err != nil {
		return fmt.Errorf("key folder %s: %w", string(f), cause(err))
	}
	err = errors.Join(d.Sync(), d.Close())
	if err != nil {
		return fmt.Errorf("key folder %s cannot be synced: %w", string(f), cause(err))
	}
	return nil
}

// missing is the error for a file that must be there.
func (f folder) missing(file string) error {
	return fmt.Errorf("key file %s is missing; restore it from a backup (a new key would lock out every device)", f.name(file))
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
	st, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("key file %s cannot be read: %w", name, cause(err))
	}
	if !st.Mode().IsRegular() { // a pipe would block, a link may lead anywhere
		return nil, fmt.Errorf("key file %s is not a regular file", name)
	}
	fh, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("key file %s cannot be read: %w", name, cause(err))
	}
	defer fh.Close()
	if st, err = fh.Stat(); err != nil {
		return nil, fmt.Errorf("key file %s: %w", name, cause(err))
	}
	if foreign(st) {
		return nil, fmt.Errorf("key file %s belongs to another user", name)
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
	return f.sync()
}

// key reads 32 bytes as hex with a check sum. Where make is set and there is none,
// it draws and stores them (or given, if not nil).
func (f folder) key(file string, make bool, given *[32]byte, random io.Reader) (k [32]byte, made bool, err error) {
	b, err := f.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		if !make {
			return k, false, f.missing(file)
		}
		if given != nil {
			k = *given
		} else if _, err := io.ReadFull(random, k[:]); err != nil {
			return k, false, fmt.Errorf("key file %s cannot be made: %w", f.name(file), err)
		}
		return k, true, f.write(file, fmt.Appendf(nil, "%x %s\n", k, check(k[:])))
	}
	if err != nil {
		return k, false, err
	}
	text, sum, ok := strings.Cut(strings.TrimSpace(string(b)), " ")
	if !ok || len(text) != 64 {
		return k, false, f.damaged(file)
	}
	if _, err := hex.Decode(k[:], []byte(text)); err != nil || sum != check(k[:]) || k == [32]byte{} {
		return k, false, f.damaged(file)
	}
	return k, false, nil
}

// check tells a damaged secret from a good one and nothing about either.
func check(secret []byte) string {
	sum := sha256.Sum256(append([]byte("commucat/key-check/1\x00"), secret...))
	return hex.EncodeToString(sum[:4])
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
