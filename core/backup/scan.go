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

// Scan lists the files of a data folder that an archive keeps. without are folders
// (relative, with slashes) that are left out. others are names of what is neither file
// nor folder: sockets are left out in silence, links are not followed.
func Scan(dir string, keys Keys, without []string) (files []File, others []string, err error) {
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
			if !wanted(name+"/", keys) || within(name, without) {
				return fs.SkipDir
			}
			files = append(files, File{Name: name, Path: path, Mode: fs.ModeDir | 0o700})
			if st, err := d.Info(); err == nil {
				files[len(files)-1].Mode = st.Mode()
			}
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
			files = append(files, File{Name: name, Path: path, Size: st.Size(), Mode: st.Mode()})
		}
		return nil
	})
	return files, others, err
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

func within(name string, list []string) bool {
	for _, l := range list {
		if name == l || strings.HasPrefix(name, l+"/") {
			return true
		}
	}
	return false
}
