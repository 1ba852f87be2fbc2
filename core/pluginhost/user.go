package pluginhost

import (
	"fmt"
	"hash/fnv"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// Users that nobody else has, for plugins without one of their own in the list; the
// range in which service managers look for such users, too.
const (
	firstUser = 61184
	lastUser  = 65519
)

// owner is a user and group; the zero value is the relay's own.
type owner struct{ uid, gid int }

// ownerOf is whom an entry runs as. Only root can choose; others keep their user, and
// the sandbox is all there is between the plugin and the relay's files.
func (h *Host) ownerOf(e Entry) (owner, error) {
	if !h.kernel.Root {
		return owner{}, nil
	}
	if e.User == "" {
		return h.invented(e.key())
	}
	if id, err := strconv.Atoi(e.User); err == nil && id > 0 {
		return owner{id, id}, nil
	}
	u, err := user.Lookup(e.User)
	if err != nil {
		return owner{}, refuse(e.key(), "this machine has no user %q; make it, or add the plugin again with another --user", e.User)
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err1 != nil || err2 != nil || uid == 0 {
		return owner{}, refuse(e.key(), "user %q is no user for a plugin", e.User)
	}
	return owner{uid, gid}, nil
}

// invented gives a plugin a user of its own, the same each time as far as no two
// plugins fall together.
func (h *Host) invented(key string) (owner, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if id, ok := h.users[key]; ok {
		return owner{id, id}, nil
	}
	taken := map[int]bool{}
	for _, id := range h.users {
		taken[id] = true
	}
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(key))
	const n = lastUser - firstUser + 1
	for i := range n {
		id := firstUser + (int(sum.Sum32()%n)+i)%n
		if !taken[id] {
			h.users[key] = id
			return owner{id, id}, nil
		}
	}
	return owner{}, refuse(key, "no user is left for it")
}

// folder makes a private folder of a plugin (0700) below parent and gives it to its
// user, who must be able to reach it.
func (o owner) folder(parent, name string) (string, error) {
	dir := filepath.Join(parent, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("folder %s cannot be made: %w", dir, bare(err))
	}
	if o.uid == 0 {
		return dir, nil
	}
	if err := give(dir, o); err != nil {
		return "", fmt.Errorf("folder %s cannot be given to user %d: %w", dir, o.uid, err)
	}
	for p := parent; ; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		if err != nil {
			return "", fmt.Errorf("folder %s: %w", p, bare(err))
		}
		if info.Mode().Perm()&0o001 == 0 {
			return "", fmt.Errorf("user %d of the plugin cannot reach %s; run 'chmod o+x %s'", o.uid, dir, p)
		}
		if p == filepath.Dir(p) {
			return dir, nil
		}
	}
}

// give changes the owner of a folder and of what is in it, for a plugin whose user is
// another than before. Links are not followed.
func give(dir string, o owner) error {
	var st syscall.Stat_t
	if err := syscall.Lstat(dir, &st); err != nil {
		return err
	}
	if int(st.Uid) == o.uid && int(st.Gid) == o.gid {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return bare(err)
	}
	defer root.Close()
	var walk func(name string) error
	walk = func(name string) error {
		d, err := root.Open(name)
		if err != nil {
			return bare(err)
		}
		entries, err := d.ReadDir(-1)
		d.Close()
		if err != nil {
			return bare(err)
		}
		for _, e := range entries {
			inner := filepath.Join(name, e.Name())
			if e.IsDir() {
				if err := walk(inner); err != nil {
					return err
				}
			}
			if err := root.Lchown(inner, o.uid, o.gid); err != nil {
				return bare(err)
			}
		}
		return nil
	}
	if err := walk("."); err != nil {
		return err
	}
	return os.Lchown(dir, o.uid, o.gid)
}
