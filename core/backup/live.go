package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// small is the size of a file up to which it is copied rather than linked: those that
// their owners write anew in place are small.
const small = 64 << 10

// pluginsFolder has a folder for each plugin, which only that plugin's user may write to.
const pluginsFolder = "plugins"

// Live lists what an archive keeps of the data folder of a running relay.
type Live struct {
	// Dir is the data folder.
	Dir string
	// Stage is an empty folder on the same file system. What Gather lists lies there:
	// links to files as they are, which may grow or be replaced from then on.
	Stage string
	// Keys is the part that is wanted.
	Keys Keys
	// Instead has folders that stand in the place of those of the data folder.
	Instead map[string]string

	ctx    context.Context
	above  []fs.FileInfo // Stage, and the folders that it lies in
	files  []File
	others []string
	count  int
}

// Gather lists the files, and puts those that are not in a folder of Instead into Stage. It
// follows no link that a plugin has laid, and files keep the size that they have now.
func (l *Live) Gather(ctx context.Context) (files []File, others []string, err error) {
	l.ctx = ctx
	if l.above, err = folders(l.Stage); err != nil {
		return nil, nil, err
	}
	if err := l.folder(l.Dir, ""); err != nil {
		return nil, nil, err
	}
	list, err := os.ReadDir(filepath.Join(l.Dir, pluginsFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, e := range list {
		name := pluginsFolder + "/" + e.Name()
		if l.Keys == OnlyKeys || l.Instead[name] != "" || !e.IsDir() {
			continue
		}
		if err := l.folder(filepath.Join(l.Dir, pluginsFolder, e.Name()), name+"/"); err != nil {
			return nil, nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.Instead)) {
		if err := l.instead(name, l.Instead[name]); err != nil {
			return nil, nil, err
		}
	}
	return l.files, l.others, nil
}

// folder gathers a folder that one user owns; whatever is a link in it leads no way out.
func (l *Live) folder(dir, prefix string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if gone(err) && path != "." {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, path), bare(err))
		}
		if path == "." {
			return l.ctx.Err()
		}
		name := prefix + path
		if d.IsDir() {
			return l.subfolder(dir, name, path, d)
		}
		switch {
		case !wanted(name, l.Keys) || name == "lock" || d.Type()&fs.ModeSocket != 0:
		case !d.Type().IsRegular():
			l.others = append(l.others, name)
		default:
			if err := l.stage(root, path, name); !gone(err) {
				return err
			}
		}
		return nil
	})
}

// folders are a folder and those that it lies in. However the data folder was named to
// who made Stage and to who gathers, they are found again in it.
func folders(dir string) (all []fs.FileInfo, err error) {
	for {
		st, err := os.Stat(dir)
		if err != nil {
			return nil, err
		}
		all = append(all, st)
		up := filepath.Dir(dir)
		if up == dir {
			return all, nil
		}
		dir = up
	}
}

// gone says that a file was removed meanwhile.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (l *Live) subfolder(dir, name, path string, d fs.DirEntry) error {
	if !wanted(name+"/", l.Keys) || left(name) {
		return fs.SkipDir
	}
	st, err := d.Info()
	if gone(err) {
		return fs.SkipDir
	}
	if err != nil {
		return err
	}
	if slices.ContainsFunc(l.above, func(a fs.FileInfo) bool { return os.SameFile(a, st) }) {
		return fs.SkipDir
	}
	l.files = append(l.files, fileOf(name, filepath.Join(dir, path), st))
	if l.Instead[name] != "" || strings.HasPrefix(name, pluginsFolder+"/") && strings.Count(name, "/") == 1 && dir == l.Dir {
		return fs.SkipDir // its content comes from elsewhere, or with a root of its own
	}
	return nil
}

// stage lays a file as it is now aside.
func (l *Live) stage(root *os.Root, path, name string) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	in, err := root.OpenFile(path, os.O_RDONLY|noWait, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		l.others = append(l.others, name)
		return nil
	}
	to := filepath.Join(l.Stage, fmt.Sprintf("%08d", l.count))
	l.count++
	f := fileOf(name, to, st)
	if st.Size() <= small || link(in, to) != nil {
		if f.Size, err = copyHead(in, to, st.Size()); err != nil {
			return err
		}
	}
	l.files = append(l.files, f)
	return nil
}

// copyHead copies at most size bytes and says how many there were.
func copyHead(in *os.File, to string, size int64) (int64, error) {
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, io.LimitReader(in, size))
	return n, errors.Join(err, out.Close())
}

// instead lists a folder that stands for another; the other's own entry came before.
func (l *Live) instead(name, dir string) error {
	if !wanted(name+"/", l.Keys) {
		return nil
	}
	files, others, err := Scan(dir, WithKeys)
	if err != nil {
		return err
	}
	for i := range files {
		files[i].Name = name + "/" + files[i].Name
	}
	for _, o := range others {
		l.others = append(l.others, name+"/"+o)
	}
	l.files = append(l.files, files...)
	return nil
}
