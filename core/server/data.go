package server

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// layoutVersion is the layout of the data folder; a newer one is refused.
const layoutVersion = 1

// Layout is the newest layout of a data folder that this program knows.
const Layout = layoutVersion

// Names inside the data folder.
const (
	lockFile  = "lock"
	stateFile = "relay.json"
	keysDir   = "keys"
	stateDir  = "plugins"
	auditDir  = "audit"
	adminSock = "admin.sock"
)

// data is the locked data folder.
type data struct {
	dir   string
	lock  *os.File
	drawn drawn
}

// drawn is what a relay draws once for its life and keeps: values that must
// differ from deployment to deployment, since a default would be a signature.
type drawn struct {
	Version     int    `json:"version"`
	Node        string `json:"node"`
	ConnectPath string `json:"connect_path"`
	Cookie      string `json:"cookie"`
	// Marked: the storage has been used by this relay, and says so.
	Marked bool `json:"marked,omitempty"`
}

// openData makes or opens the folder and takes its lock. Every error is one line
// that says what to do.
func openData(dir string, random io.Reader) (d *data, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder %s cannot be made: %w", dir, reason(err))
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder %s cannot be written: %w; check its owner and mode", dir, reason(err))
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, inUse{fmt.Sprintf("data folder %s is used by another relay%s; stop that one or name another folder with --data", dir, holder(lock))}
	}
	if err = lock.Truncate(0); err == nil {
		_, err = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, fmt.Errorf("data folder %s cannot be written: %w", dir, reason(err))
	}
	d = &data{dir: dir, lock: lock}
	if err := d.load(random); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, stateDir), 0o700); err != nil {
		return nil, fmt.Errorf("data folder %s cannot be written: %w", dir, reason(err))
	}
	if err := d.sweepSnapshots(); err != nil {
		return nil, fmt.Errorf("data folder %s: what is left of a backup cannot be removed: %w", dir, reason(err))
	}
	return d, nil
}

// ErrInUse is what errors.Is finds in the error of a data folder that a relay uses.
var ErrInUse = errors.New("a relay uses the data folder")

type inUse struct{ text string }

func (e inUse) Error() string { return e.text }
func (inUse) Unwrap() error   { return ErrInUse }

// holder names the process that wrote itself into the lock file.
func holder(lock *os.File) string {
	b := make([]byte, 32)
	n, _ := lock.ReadAt(b, 0)
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b[:n])))
	if err != nil || pid <= 0 {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}

// reason leaves the path out of an error that already names it.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (d *data) load(random io.Reader) error {
	name := filepath.Join(d.dir, stateFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if used(d.path(keysDir)) { // the keys are always made after it
			return fmt.Errorf("%s is missing beside keys; restore it from the same backup: links and devices name what it holds", name)
		}
		return d.draw(random)
	}
	if err != nil {
		return fmt.Errorf("%s cannot be read: %w", name, reason(err))
	}
	// The version first: a newer layout may look damaged to this one, and must not be
	// overwritten by a backup.
	var layout struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &layout); err == nil && layout.Version > layoutVersion {
		return fmt.Errorf("data folder %s was made by a newer version (layout %d, this one knows %d); install that version", d.dir, layout.Version, layoutVersion)
	}
	if err := json.Unmarshal(b, &d.drawn); err != nil || d.drawn.ConnectPath == "" || d.drawn.Cookie == "" {
		return fmt.Errorf("%s is damaged; restore it from a backup: links in use name what it holds", name)
	}
	if keys := d.path(keysDir); used(d.path(stateDir)) && !used(keys) {
		return fmt.Errorf("key folder %s is missing or empty; restore it from a backup (new keys would lock out every device)", keys)
	}
	return nil
}

// used says that a folder has something in it.
func used(dir string) bool {
	list, _ := os.ReadDir(dir) // whoever works with it tells why it cannot be read
	return len(list) > 0
}

// draw chooses a connect path and a cookie name that an ordinary site could have.
func (d *data) draw(random io.Reader) error {
	var b [24]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return err
	}
	folders := []string{"assets", "static", "media", "cdn", "files", "app", "data", "content"}
	cookies := []string{"sid", "uid", "_s", "session", "prefs", "cid", "visitor", "_id"}
	d.drawn = drawn{
		Version:     layoutVersion,
		Node:        hex.EncodeToString(b[:8]),
		ConnectPath: "/" + folders[int(b[8])%len(folders)] + "/" + hex.EncodeToString(b[9:15]),
		Cookie:      cookies[int(b[15])%len(cookies)],
	}
	return d.keep()
}

// keep writes what was drawn.
func (d *data) keep() error {
	j, err := json.MarshalIndent(d.drawn, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(d.path(stateFile), append(j, '\n')); err != nil {
		return fmt.Errorf("data folder %s cannot be written: %w", d.dir, reason(err))
	}
	return nil
}

// writeFile replaces name; the content is on disk when it returns.
func writeFile(name string, b []byte) error {
	tmp := name + "." + rand.Text()[:8]
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync())
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (d *data) path(elem ...string) string { return filepath.Join(append([]string{d.dir}, elem...)...) }

// close lets go of the folder.
func (d *data) close() error { return d.lock.Close() }

// DefaultData is the data folder when none is named: $STATE_DIRECTORY (systemd),
// else commucat in the XDG state folder.
func DefaultData(getenv func(string) string) (string, error) {
	if dir := getenv("STATE_DIRECTORY"); dir != "" {
		// systemd may list several; the first is the unit's own.
		return filepath.SplitList(dir)[0], nil
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "commucat"), nil
	}
	home := getenv("HOME")
	if home == "" {
		return "", errors.New("no data folder: name one with --data, or set HOME")
	}
	return filepath.Join(home, ".local", "state", "commucat"), nil
}
