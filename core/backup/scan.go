package backup

import (
	"crypto/rand"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
)

// Names of the data folder.
const (
	keysFolder = "keys"
	relayFile  = "relay.json"
)

// snapshotPrefix begins the names of folders that stand for a moment of a running relay.
const snapshotPrefix = "snapshot-"

// SnapshotName draws the name of a folder that stands for a moment of a running relay. It
// lies in the data folder, or in that of the plugin which fills it.
func SnapshotName() string { return snapshotPrefix + rand.Text() }

// IsSnapshot says that a name is like those that SnapshotName draws. An operator's own
// "snapshot-2026" is not.
func IsSnapshot(name string) bool {
	drawn, ok := strings.CutPrefix(name, snapshotPrefix)
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" // rand.Text's, RFC 4648 section 6
	return ok && len(drawn) == 26 && strings.Trim(drawn, letters) == ""
}

// left says that a name is that of a folder which stood for a moment, of an archive that
// was made before: it may have keys in it, also where no archive is to have them.
func left(name string) bool {
	dir, base := path.Split(name)
	return IsSnapshot(base) && (dir == "" || strings.HasPrefix(dir, pluginsFolder+"/") && strings.Count(dir, "/") == 2)
}

// Scan lists the files of a data folder, which nobody writes to, that an archive keeps.
// others are names of what is neither file nor folder: sockets are left out in silence,
// links are not followed.
func Scan(dir string, keys Keys) (files []File, others []string, err error) {
	err = filepath.WalkDir(dir, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, full)
		if err != nil || rel == "." {
			return err
		}
		name := filepath.ToSlash(rel)
		if d.IsDir() {
			if !wanted(name+"/", keys) || left(name) {
				return fs.SkipDir
			}
			st, err := d.Info()
			if err != nil {
				return err
			}
			files = append(files, fileOf(name, full, st))
			return nil
		}
		switch {
		case !wanted(name, keys) || name == "lock":
		case d.Type()&fs.ModeSocket != 0:
		case !d.Type().IsRegular():
			others = append(others, name)
		default:
			st, err := d.Info()
			if err != nil {
				return err
			}
			files = append(files, fileOf(name, full, st))
		}
		return nil
	})
	return files, others, err
}

func fileOf(name, path string, st fs.FileInfo) File {
	f := File{Name: name, Path: path, Mode: st.Mode()}
	if !st.IsDir() {
		f.Size = st.Size()
	}
	f.UID, f.GID = owner(st)
	return f
}

// wanted says whether a name belongs to the part; a folder's ends in a slash.
func wanted(name string, keys Keys) bool {
	isKey := strings.HasPrefix(name, keysFolder+"/")
	switch keys {
	case OnlyKeys:
		return isKey || name == relayFile
	case WithoutKeys:
		return !isKey
	}
	return true
}
