package pluginhost

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/commucat/commucat/sdk"
)

// Remove takes a plugin out of its folder's list, and gives what stood there. Its file
// stays; a process that runs goes on until it ends. The error is a *Refusal.
func (c *Catalog) Remove(kind sdk.Kind, name string) (Found, error) {
	plugin := KindName(kind) + " " + name
	for _, dir := range c.folders {
		found, ok, err := removeFrom(dir, plugin)
		if ok || err != nil {
			return found, err
		}
	}
	return Found{}, refuse(plugin, "no list in %s has it", strings.Join(c.folders, " or "))
}

func removeFrom(dir, plugin string) (found Found, ok bool, err error) {
	f, err := openFolder(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return found, false, nil
	}
	if err != nil {
		return found, false, err
	}
	defer f.close()
	release, err := f.hold()
	if err != nil {
		return found, false, err
	}
	defer release()
	l, err := f.lock()
	if err != nil {
		return found, false, err
	}
	i := slices.IndexFunc(l.Plugins, func(e Entry) bool { return e.key() == plugin })
	if i < 0 {
		return found, false, nil
	}
	found = Found{Entry: l.Plugins[i], Folder: dir}
	l.Plugins = slices.Delete(l.Plugins, i, i+1)
	b, err := l.marshal()
	if err != nil {
		return found, false, err
	}
	err = f.write(LockFile, 0o644, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
	return found, true, err
}
