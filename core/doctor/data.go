package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/commucat/commucat/core/keyring"
)

// data looks at the data folder and says whether a relay has used it.
func (e *examination) data() bool {
	const check = "data folder"
	st, err := os.Stat(e.Data)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.add(check, Weak, e.Data+" does not exist yet", "commucat init --domain NAME --data "+e.Data)
		return false
	case err != nil:
		e.add(check, Wrong, reason(e.Data, err), "run this as the relay's own user")
		return false
	case !st.IsDir():
		e.add(check, Wrong, e.Data+" is not a folder", "name another with --data or server.data")
		return false
	}
	bad := len(e.out)
	if p := st.Mode().Perm(); p&0o022 != 0 {
		e.add(check, Wrong, fmt.Sprintf("%s can be changed by other users (mode %04o)", e.Data, p), "chmod 700 "+e.Data)
	} else if p&0o055 != 0 && (p != 0o711 || owner(st) != 0) {
		// 0711 is how root lets its plugins' users reach their folders.
		e.add(check, Weak, fmt.Sprintf("%s can be read by other users (mode %04o)", e.Data, p), "chmod 700 "+e.Data)
	}
	if err := unix.Access(e.Data, unix.W_OK); err != nil {
		e.add(check, Wrong, fmt.Sprintf("%s cannot be written by this user: %v", e.Data, err), fmt.Sprintf("chown -R %s %s, or run this as the relay's own user", self(), e.Data))
	}
	b, err := os.ReadFile(filepath.Join(e.Data, "relay.json"))
	if errors.Is(err, fs.ErrNotExist) {
		if keys, _ := os.ReadDir(filepath.Join(e.Data, "keys")); len(keys) > 0 {
			e.add(check, Wrong, filepath.Join(e.Data, "relay.json")+" is missing beside keys", "restore it from the same backup: links and devices name what it holds")
			return true
		}
		e.fine(check, "%s, not used yet", e.Data)
		return false
	}
	var drawn struct {
		Version int `json:"version"`
	}
	switch {
	case err != nil:
		e.add(check, Wrong, reason("relay.json", err), "run this as the relay's own user")
	case json.Unmarshal(b, &drawn) != nil || drawn.Version == 0:
		e.add(check, Wrong, filepath.Join(e.Data, "relay.json")+" is damaged", "restore it from a backup: links in use name what it holds")
	case drawn.Version > e.Layout:
		e.add(check, Wrong, fmt.Sprintf("%s was made by a newer version (layout %d, this one knows %d)", e.Data, drawn.Version, e.Layout), "install that version")
	}
	if len(e.out) == bad {
		e.fine(check, "%s", e.Data)
	}
	return true
}

func reason(name string, err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return name + ": " + err.Error()
}

// self is who runs this, for chown.
func self() string {
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	return fmt.Sprint(os.Getuid())
}

// keys looks at the modes of the key files, and then whether the relay could read them.
func (e *examination) keys() {
	const check = "keys"
	dir := filepath.Join(e.Data, "keys")
	st, err := os.Lstat(dir)
	if err != nil {
		e.add(check, Wrong, reason(dir, err), "restore it from a backup: without it every link, pin and certificate is void")
		return
	}
	before := len(e.out)
	if p := st.Mode().Perm(); p&0o077 != 0 {
		e.add(check, Wrong, fmt.Sprintf("%s is open to other users (mode %04o)", dir, p), "chmod 700 "+dir)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		e.add(check, Wrong, reason(dir, err), "run this as the relay's own user")
		return
	}
	for _, f := range list {
		e.key(check, st, filepath.Join(dir, f.Name()))
	}
	if len(e.out) == before && owner(st) == os.Geteuid() { // else they say that they are another user's
		for _, err := range keyring.Check(dir) {
			what, remedy, _ := strings.Cut(err.Error(), "; ")
			e.add(check, Wrong, what, remedy)
		}
	}
	if len(e.out) == before {
		e.fine(check, "%d files, for their owner only", len(list))
	}
}

// secrets looks at the modes of what else holds secrets: the files that the
// configuration names, and the folders of plugins. A group may be let read a file.
func (e *examination) secrets() {
	const check = "secrets"
	before, n := len(e.out), 0
	for _, name := range e.Config.SecretFiles() {
		st, err := os.Stat(name)
		if err != nil {
			continue // the configuration's error says it
		}
		n++
		if p := st.Mode().Perm(); p&0o027 != 0 {
			e.add(check, Wrong, fmt.Sprintf("%s is open to other users (mode %04o): consider the secret known", name, p), "chmod 600 "+name)
		}
	}
	folders, err := os.ReadDir(filepath.Join(e.Data, "plugins"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return // the data folder's check says it
	}
	for _, f := range folders {
		st, err := f.Info()
		if err != nil || !st.IsDir() {
			continue
		}
		n++
		if p := st.Mode().Perm(); p&0o077 != 0 {
			name := filepath.Join(e.Data, "plugins", f.Name())
			e.add(check, Wrong, fmt.Sprintf("%s is open to other users (mode %04o)", name, p), "chmod 700 "+name)
		}
	}
	if len(e.out) == before && n > 0 {
		e.fine(check, "%d files and plugins' folders, closed to other users", n)
	}
}

func (e *examination) key(check string, dir fs.FileInfo, name string) {
	st, err := os.Lstat(name)
	switch {
	case err != nil:
		e.add(check, Wrong, reason(name, err), "run this as the relay's own user")
	case !st.Mode().IsRegular():
		e.add(check, Wrong, name+" is not a regular file", "restore it from a backup")
	case st.Mode().Perm()&0o077 != 0:
		e.add(check, Wrong, fmt.Sprintf("%s is readable by other users (mode %04o): consider the key known", name, st.Mode().Perm()), "chmod 600 "+name)
	case owner(st) != owner(dir):
		e.add(check, Wrong, name+" belongs to another user than its folder", "chown --reference="+filepath.Dir(name)+" "+name)
	}
}

// owner is the user id of a file.
func owner(st fs.FileInfo) int {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}
