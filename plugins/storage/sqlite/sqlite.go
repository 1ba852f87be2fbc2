package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// Config is the plugin's table.
type Config struct {
	Path     string   `cfg:"path" doc:"folder of the database; a relative one lies in the storage's own data folder, and so does an empty one"`
	Queues   string   `cfg:"queues" default:"pebble" enum:"pebble,sqlite" doc:"where messages are kept: in a log-structured store beside the database, or in the database"`
	Index    int      `cfg:"index" default:"1048576" min:"1024" doc:"waiting messages that are known in memory (about 40 bytes each); queues beyond are read in when used"`
	Memtable sdk.Size `cfg:"memtable" default:"32MiB" min:"1MiB" max:"256MiB" doc:"write buffer of the log-structured store; the memory is taken only under load"`
	Reserve  sdk.Size `cfg:"reserve" default:"64MiB" doc:"free disk space below which nothing is accepted any more"`
}

// Plugin is the storage plugin "sqlite".
func Plugin() sdk.Plugin { return define(options{}) }

func define(o options) sdk.Plugin {
	return storage.Define(storage.Descriptor{
		Name: "sqlite", Version: "1.0.0",
		Summary: "embedded database in one folder",
		Traits:  storage.Traits{Batch: 1024, Lanes: 4},
	}, func(ctx context.Context, env sdk.Env, c Config) (storage.Store, error) {
		return open(ctx, env, c, o)
	})
}

// options are for tests.
type options struct {
	fs   vfs.FS
	free func(dir string) (uint64, error)
	// verify is how long the check at the start may take.
	verify time.Duration
}

// store is one opened folder.
type store struct {
	dir string
	// state is the folder lent by the host, and path where in it dir lies; state is ""
	// where dir lies elsewhere.
	state, path string
	lock        *os.File
	db          *database
	engine      engine
	space       *space
	once        sync.Once
	err         error
}

func open(ctx context.Context, env sdk.Env, c Config, o options) (_ storage.Store, err error) {
	if o.fs == nil {
		o.fs = vfs.Default
	}
	if o.free == nil {
		o.free = freeSpace
	}
	dir := c.Path
	if !filepath.IsAbs(dir) && env.State() != "" {
		dir = filepath.Join(env.State(), dir)
	}
	if dir == "" {
		return storage.Store{}, &storage.Error{Kind: sdk.Invalid, Text: "no path configured and no data folder lent"}
	}
	s := &store{dir: dir, space: &space{dir: dir, reserve: uint64(c.Reserve), free: o.free}}
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	if s.lock, err = takeFolder(dir); err != nil {
		return storage.Store{}, err
	}
	if err = whole(dir); err != nil {
		return storage.Store{}, err
	}
	if s.db, err = openDatabase(ctx, filepath.Join(dir, "relay.db"), env.Log(), env.Degraded); err != nil {
		return storage.Store{}, err
	}
	if err = s.db.verify(ctx, o.verify); err != nil {
		return storage.Store{}, err
	}
	if c.Queues == "sqlite" {
		s.engine = &sqliteRows{s.db}
	} else {
		p, err := openPebble(filepath.Join(dir, "queues"), o.fs, uint64(c.Memtable), env.Log(), env.Degraded)
		if err != nil {
			return storage.Store{}, err
		}
		s.engine = p
	}
	x, err := newIndex(s.engine, int64(c.Index), time.Now())
	if err != nil {
		return storage.Store{}, err
	}
	if p, ok := s.engine.(*pebbleRows); ok {
		p.onReopen(x.reset)
	}
	q := &queues{x, s.space.room}
	out := storage.Store{
		Queues:    q,
		Positions: q,
		Directory: &directory{s.db, s.space},
		Inventory: &inventory{s.db, s.engine},
		Ready:     s.ready,
		Close:     func(context.Context) error { return s.close() },
	}
	if !filepath.IsAbs(c.Path) && env.State() != "" {
		s.state, s.path = env.State(), c.Path
		out.Snapshots = s
	}
	return out, nil
}

func (s *store) ready(ctx context.Context) error {
	if err := s.space.room(1); err != nil {
		return err
	}
	if err := s.db.ready(ctx); err != nil {
		return err
	}
	return s.engine.ready()
}

func (s *store) close() error {
	s.once.Do(func() {
		if s.engine != nil {
			s.err = errors.Join(s.err, s.engine.close())
		}
		if s.db != nil {
			s.err = errors.Join(s.err, s.db.close())
		}
		if s.lock != nil {
			s.err = errors.Join(s.err, s.lock.Close())
		}
	})
	return s.err
}

// whole refuses a folder that has lost one of its halves: opened as it is, it would
// begin anew with an empty one. The database is always made before the queues, and the
// witness after their first manifest.
func whole(dir string) error {
	db, queues := filepath.Join(dir, "relay.db"), filepath.Join(dir, "queues")
	names, err := manifests(queues)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(names) > 0 {
		if st, err := os.Stat(db); errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() == 0 {
			return corrupt(db + ": it is missing or empty beside the queues; restore the folder from a backup")
		}
		return nil
	}
	if st, err := os.Stat(queues + ".manifests"); err == nil && st.Size() > 0 {
		return corrupt(queues + ": its list of tables is missing; restore the folder from a backup")
	}
	return nil
}

// takeFolder makes the folder if its parent is there, and locks it against other
// processes until the file is closed.
func takeFolder(dir string) (*os.File, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, folderError(dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, folderError(dir, err)
	}
	if err := lockFile(f); err != nil {
		_ = f.Close()
		return nil, &storage.Error{Kind: sdk.Unavailable, Op: dir, Text: "another process is using this folder"}
	}
	return f, nil
}

func folderError(dir string, err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = errors.New("the folder above it does not exist")
	case errors.Is(err, fs.ErrPermission):
		err = errors.New("not allowed to write here; check owner and mode")
	}
	return unavailable(dir, err)
}

// space watches the free space of the disk. Appends end at the reserve, so that
// deletions, which need space as well, still work.
type space struct {
	dir     string
	reserve uint64
	free    func(dir string) (uint64, error)

	mu    sync.Mutex
	until time.Time // the last answer holds
	left  int64     // bytes that may be written before asking again
	err   error
}

// room answers whether so many bytes more may be written.
func (s *space) room(bytes int) error {
	if bytes == 0 || s.reserve == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.left -= int64(bytes); s.left < 0 || !now.Before(s.until) {
		s.ask(now, bytes)
	}
	return s.err
}

func (s *space) ask(now time.Time, bytes int) {
	s.until = now.Add(time.Second)
	free, err := s.free(s.dir)
	switch {
	case err != nil:
		s.left, s.err = 0, nil // the write itself will tell
	case free < s.reserve+uint64(bytes):
		s.left = 0
		s.err = unavailable(s.dir, fmt.Errorf("the disk is full: %s free, %s are kept in reserve",
			sdk.Size(free>>20<<20), sdk.Size(s.reserve)))
	default:
		// Some of what is free goes to logs and files that are rewritten.
		s.left, s.err = int64(free-s.reserve)/8, nil
	}
}
