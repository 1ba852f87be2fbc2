package backup

import (
	"io/fs"
	"path/filepath"
	"strings"
)

// Names of the data folder.
const (
	keysFolder = "keys"
	relayFile  = "relay.json"
)

// Scan lists the files of a data folder, which nobody writes to, that an archive keeps.
// others are names of what is neither file nor folder: sockets are left out in silence,
// links are not followed.
func Scan(dir string, keys Keys) (files []File, others []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil || rel == "." {
			return err
		}
		name := filepath.ToSlash(rel)
		if d.IsDir() {
			if !wanted(name+"/", keys) {
				return fs.SkipDir
			}
			st, err := d.Info()
			if err != nil {
				return err
			}
			files = append(files, fileOf(name, path, st))
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
			files = append(files, fileOf(name, path, st))
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
