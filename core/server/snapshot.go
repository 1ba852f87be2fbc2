package server

import (
	"context"
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

// longestHold is how long ledgers wait for who makes an archive, once there is all that it
// is made of.
const longestHold = time.Minute

// errHeldTooLong answers who wants to let ledgers go on that have long gone on.
var errHeldTooLong = errors.New("the ledgers waited for a minute and have gone on: what was copied of them is not of one moment; try again when the machine is less busy")

// snapshot copies what changes while the relay runs: the audit chain, the storage's data if
// that lies in the data folder, and the keys, as they are at one moment each, in this
// order. That is what a crash would leave, with everything acknowledged before.
//
// The order is why ledgers wait while the storage is copied, however long that takes: the
// audit chain comes first, since it may lack what the storage has, but must not tell of
// what the storage lacks; and what ledgers keep, which is copied last, must not have records
// that the chain lacks. The spool takes records meanwhile, and whoever asked ends the
// waiting by going.
func (s *Server) snapshot(ctx context.Context, keys string) (_ api.Held, err error) {
	data, err := filepath.Abs(s.data.dir) // whoever asks may work in another folder
	if err != nil {
		return api.Held{}, err
	}
	dir := filepath.Join(data, backup.SnapshotName())
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
		add(auditDir, audit)
		if s.store.Snapshots != nil {
			state := stateDir + "/storage-" + s.cfg.Storage.Backend
			at := filepath.Join(data, state, out.ID)
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
	h.within(longestHold)
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

// within lets the ledgers go on when the time is over.
func (h *holding) within(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ledgers != nil {
		h.timer = time.AfterFunc(d, func() { h.release(true) })
	}
}

// release lets the ledgers go on; late says that nobody asked for it.
func (h *holding) release(late bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ledgers == nil {
		return
	}
	if h.timer != nil {
		h.timer.Stop()
	}
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

// sweepSnapshots removes what a crash left of snapshots in a locked data folder: in itself
// and in the storages' folders.
func (d *data) sweepSnapshots() error {
	if err := sweep(d.dir); err != nil {
		return err
	}
	list, err := os.ReadDir(d.path(stateDir))
	if err != nil {
		return err
	}
	for _, e := range list {
		// Not through a link, and not where only the plugin's own user may read.
		if !e.IsDir() || !strings.HasPrefix(e.Name(), "storage-") {
			continue
		}
		if err := sweep(d.path(stateDir, e.Name())); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// sweep removes the snapshots of one folder. One that cannot be removed is in nobody's way.
func sweep(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if !e.IsDir() || !backup.IsSnapshot(e.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}
