package server

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/core/api"
	"github.com/commucat/commucat/core/backup"
)

// snapshotPrefix begins the names of folders that stand for a moment of this relay; what a
// crash left of them is removed at the next start.
const snapshotPrefix = "snapshot-"

// longestHold is how long ledgers wait for who makes an archive.
const longestHold = time.Minute

// errHeldTooLong answers who wants to let ledgers go on that have long gone on.
var errHeldTooLong = errors.New("the ledgers waited for a minute and have gone on: what was copied of them is not of one moment; try again when the machine is less busy")

// snapshot copies what changes while the relay runs: the audit chain, the storage's data if
// that lies in the data folder, and the keys, as they are at one moment each, in this
// order. That is what a crash would leave, with everything acknowledged before.
func (s *Server) snapshot(ctx context.Context, keys string) (_ api.Held, err error) {
	dir := s.data.path(snapshotPrefix + rand.Text())
	h := &holding{dirs: []string{dir}}
	defer func() {
		if err != nil {
			h.end()
		}
	}()
	out := api.Snapshot{ID: filepath.Base(dir), Stage: filepath.Join(dir, "stage")}
	for _, d := range []string{dir, out.Stage} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return api.Held{}, err
		}
	}
	add := func(name, dir string) {
		out.Folders = append(out.Folders, api.SnapshotFolder{Name: name, Dir: dir})
	}
	if keys != string(backup.OnlyKeys) {
		audit := filepath.Join(dir, auditDir)
		if out.Busy, h.ledgers, err = s.audit.Hold(ctx, audit); err != nil {
			return api.Held{}, err
		}
		h.timer = time.AfterFunc(longestHold, func() { h.release(true) })
		add(auditDir, audit)
		if s.store.Snapshots != nil {
			state := stateDir + "/storage-" + s.cfg.Storage.Backend
			at := s.data.path(state, out.ID)
			h.dirs = append(h.dirs, at)
			if err := s.store.Snapshots.Snapshot(ctx, out.ID); err != nil {
				return api.Held{}, err
			}
			add(state, at)
			out.Contained = true
		}
	}
	if keys != string(backup.WithoutKeys) {
		to := filepath.Join(dir, keysDir)
		if err := s.ring.Still(func() error { return linkFiles(s.data.path(keysDir), to) }); err != nil {
			return api.Held{}, err
		}
		add(keysDir, to)
	}
	return api.Held{Snapshot: out, Release: h.releaseInTime, End: h.end}, nil
}

// holding is what a snapshot holds.
type holding struct {
	mu      sync.Mutex
	ledgers func()
	timer   *time.Timer
	late    bool
	dirs    []string
}

// release lets the ledgers go on; late says that nobody asked for it.
func (h *holding) release(late bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ledgers == nil {
		return
	}
	h.timer.Stop()
	h.ledgers()
	h.ledgers, h.late = nil, late
}

func (h *holding) releaseInTime() error {
	h.release(false)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.late {
		return errHeldTooLong
	}
	return nil
}

// end removes everything.
func (h *holding) end() {
	h.release(true)
	for _, d := range h.dirs {
		_ = os.RemoveAll(d) // what stays is removed at the next start
	}
}

// linkFiles makes to a folder with the files of a folder whose files are only ever
// replaced as a whole.
func linkFiles(from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range list {
		if !e.Type().IsRegular() {
			continue
		}
		a, b := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if os.Link(a, b) == nil {
			continue
		}
		if err := copyFile(a, b); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// sweepSnapshots removes what a crash left of snapshots in a locked data folder.
func (d *data) sweepSnapshots() error {
	for _, pattern := range []string{d.path(snapshotPrefix + "*"), d.path(stateDir, "storage-*", snapshotPrefix+"*")} {
		left, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, dir := range left {
			// Not through a link that a plugin laid into its own folder.
			if st, err := os.Lstat(filepath.Dir(dir)); err != nil || !st.IsDir() || strings.Contains(filepath.Base(dir), "..") {
				continue
			}
			if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrPermission) {
				return err
			}
		}
	}
	return nil
}
