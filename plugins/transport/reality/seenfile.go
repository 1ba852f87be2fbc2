package reality

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Files of seen, in the plugin's state folder:
//
//	seen-N       header 48: magic 8 | boot id 40, zero padded; then 32-byte session ids
//	seen.sealed  after a clean end: pairs of N and size, 8 bytes each, big endian
//	seen.lock    locked while any of them is looked at or written
const (
	seenMagic  = "ccseen1\n"
	seenHeader = 48
	seenPrefix = "seen-"
	// lockPatience bounds the wait for another process.
	lockPatience = 200 * time.Millisecond
)

type seenFiles struct {
	folder string
	boot   [seenHeader - len(seenMagic)]byte
	lock   *os.File
}

type seenFile struct {
	f    *os.File
	size int64 // read or written so far
}

var errSeenBusy = errors.New("another process holds the record of hellos")

func openSeenFiles(folder string) (*seenFiles, error) {
	lock, err := os.OpenFile(filepath.Join(folder, "seen.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	s := &seenFiles{folder: folder, lock: lock}
	// The page cache outlives a process, not the machine.
	if boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		copy(s.boot[:], bytes.TrimSpace(boot))
	}
	return s, nil
}

func (s *seenFiles) close() { _ = s.lock.Close() }

func (s *seenFiles) locked(do func() error) error {
	for deadline := time.Now().Add(lockPatience); ; {
		ok, err := tryLock(s.lock)
		if err != nil {
			return err
		}
		if ok {
			break
		}
		if time.Now().After(deadline) {
			return errSeenBusy
		}
		time.Sleep(time.Millisecond)
	}
	defer unlock(s.lock)
	return do()
}

func (s *seenFiles) path(n int64) string {
	return filepath.Join(s.folder, seenPrefix+strconv.FormatInt(n, 10))
}

// list names the generations that have a file.
func (s *seenFiles) list() ([]int64, error) {
	entries, err := os.ReadDir(s.folder)
	if err != nil {
		return nil, err
	}
	var numbers []int64
	for _, e := range entries {
		text, ok := strings.CutPrefix(e.Name(), seenPrefix)
		if n, err := strconv.ParseInt(text, 10, 64); ok && err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// has says whether another process has made the file of a generation.
func (s *seenFiles) has(n int64) bool {
	if s == nil {
		return false
	}
	_, err := os.Stat(s.path(n))
	return err == nil
}

func (s *seenFiles) remove(n int64) { _ = os.Remove(s.path(n)) }

// Why a record may lack what was accepted.
const (
	doubtDown    = "the machine went down without a clean end"
	doubtUnknown = "the last end was not clean, and this system does not tell whether the machine went down (boot_id cannot be read)"
	doubtDamage  = "the record of accepted clients is damaged"
)

// open opens or makes the file of a generation. doubt says why it may lack entries: the
// machine has gone down since it was begun, and it was not sealed as it is.
func (s *seenFiles) open(n int64, file *seenFile) (doubt string, err error) {
	f, err := os.OpenFile(s.path(n), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	header := append([]byte(seenMagic), s.boot[:]...)
	file.f, file.size = f, seenHeader
	if info.Size() == 0 {
		// It must be there after a crash of the machine, or nobody would know that
		// entries are lost.
		_, err = f.Write(header)
		if err == nil {
			err = f.Sync()
		}
		s.syncFolder()
		return "", err
	}
	was := make([]byte, seenHeader)
	if _, err := f.ReadAt(was, 0); err != nil || !bytes.HasPrefix(was, []byte(seenMagic)) {
		return "", fmt.Errorf("%s is not a record of hellos; remove it when no relay runs", s.path(n))
	}
	if cut := (info.Size() - seenHeader) % sessionSize; cut != 0 {
		return doubtDamage, f.Truncate(info.Size() - cut)
	}
	known := s.boot != [len(s.boot)]byte{}
	switch {
	case known && bytes.Equal(was, header), s.sealedSize(n) == info.Size():
		return "", nil
	case !known || bytes.Equal(was[len(seenMagic):], make([]byte, len(s.boot))):
		return doubtUnknown, nil
	}
	return doubtDown, nil
}

// syncFolder puts the names on the disk, where the system can do that.
func (s *seenFiles) syncFolder() { syncFolder(s.folder) }

// syncFolder puts the names in a folder on the disk.
func syncFolder(path string) {
	if d, err := os.Open(path); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
}

func (s *seenFiles) sealPath() string { return filepath.Join(s.folder, "seen.sealed") }

// seal records the sizes of files that are on the disk.
func (s *seenFiles) seal(sizes map[int64]int64) error {
	var b []byte
	for n, size := range sizes {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
		b = binary.BigEndian.AppendUint64(b, uint64(size))
	}
	f, err := os.OpenFile(s.sealPath(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func (s *seenFiles) sealedSize(n int64) int64 {
	b, err := os.ReadFile(s.sealPath())
	if err != nil {
		return -1
	}
	for ; len(b) >= 16; b = b[16:] {
		if int64(binary.BigEndian.Uint64(b)) == n {
			return int64(binary.BigEndian.Uint64(b[8:]))
		}
	}
	return -1
}

// unseal is called when new entries may follow: after a crash of the machine the seal
// must not be there again.
func (s *seenFiles) unseal() error {
	err := os.Remove(s.sealPath())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	s.syncFolder()
	return err
}

// news gives the entries after those that were read or written before.
func (f *seenFile) news(add func([sessionSize]byte)) error {
	if f.f == nil {
		return nil
	}
	b := make([]byte, 128*sessionSize)
	for {
		n, err := f.f.ReadAt(b, f.size)
		whole := n - n%sessionSize
		for i := 0; i < whole; i += sessionSize {
			add([sessionSize]byte(b[i:]))
		}
		f.size += int64(whole)
		switch {
		case err == io.EOF || whole == 0:
			return nil
		case err != nil:
			return err
		}
	}
}

// append writes an entry; what a full disk left half written is taken back.
func (f *seenFile) append(id [sessionSize]byte) error {
	n, err := f.f.Write(id[:])
	if err != nil {
		if n > 0 {
			err = errors.Join(err, f.f.Truncate(f.size))
		}
		return err
	}
	f.size += sessionSize
	return nil
}

func (f *seenFile) sync() (int64, error) { return f.size, f.f.Sync() }

func (f *seenFile) close() error {
	if f.f == nil {
		return nil
	}
	return f.f.Close()
}
