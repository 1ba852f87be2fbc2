package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"modernc.org/sqlite"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// Snapshot implements storage.Snapshots.
func (s *store) Snapshot(ctx context.Context, name string) (err error) {
	if err := storage.CheckSnapshot(name); err != nil {
		return err
	}
	if err := s.spare(); err != nil {
		return err
	}
	whole := filepath.Join(s.state, name)
	if err := os.Mkdir(whole, 0o700); err != nil {
		return unavailable("snapshot", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(whole))
		}
	}()
	dir := filepath.Join(whole, s.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return unavailable("snapshot", err)
	}
	if err := s.db.snapshot(ctx, filepath.Join(dir, "relay.db"), func() error { return s.engine.checkpoint(dir) }); err != nil {
		return err
	}
	return syncFolders(whole, dir)
}

// spare refuses a copy of the database that would eat into the reserve. Pebble's tables
// are linked, and of its log there is a few memtables' worth.
func (s *store) spare() error {
	if s.space.reserve == 0 {
		return nil
	}
	var need uint64
	for _, name := range []string{"relay.db", "relay.db-wal"} {
		if st, err := os.Stat(filepath.Join(s.dir, name)); err == nil {
			need += uint64(st.Size())
		}
	}
	free, err := s.space.free(s.dir)
	if err == nil && free < s.space.reserve+need {
		return unavailable("snapshot", fmt.Errorf("the disk of %s is too full: %s free, a copy of the database takes %s and %s are kept in reserve",
			s.dir, sdk.Size(free>>20<<20), sdk.Size((need>>20+1)<<20), sdk.Size(s.space.reserve)))
	}
	return nil
}

// syncFolders brings the names in dir, and in its parents up to top, to the disk.
func syncFolders(top, dir string) error {
	for {
		d, err := os.Open(dir)
		if err == nil {
			err = errors.Join(d.Sync(), d.Close())
		}
		if err != nil {
			return unavailable("snapshot", err)
		}
		if dir == top || !strings.HasPrefix(dir, top) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}

// snapshot copies the database to a new file. While others is called nothing is
// committed, and what is copied is what was there then.
func (d *database) snapshot(ctx context.Context, to string, others func() error) error {
	pool, err := connect(dsn(d.path, "busy_timeout(5000)", "query_only(1)", "cache_size(-1024)"), 1)
	if err != nil {
		return plain("snapshot", err)
	}
	defer func() { _ = pool.Close() }()
	conn, err := pool.Conn(ctx)
	if err != nil {
		return plain("snapshot", err)
	}
	defer func() { _ = conn.Close() }()
	var cut error
	// The writer takes no part in what fails here.
	if err := d.do(ctx, func(*tx) error { cut = begin(ctx, conn, others); return nil }); err != nil {
		return err
	}
	if cut == nil {
		cut = conn.Raw(func(c any) error { return copyDatabase(ctx, c, to) })
	}
	_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") // there may be none
	return plain("snapshot", cut)
}

// begin begins a reading transaction. SQLite chooses its moment with the first reading.
func begin(ctx context.Context, conn *sql.Conn, others func() error) error {
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	var n int
	if err := conn.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master").Scan(&n); err != nil {
		return err
	}
	return others()
}

// copyDatabase copies what the connection's transaction sees.
func copyDatabase(ctx context.Context, conn any, to string) error {
	const pages = 256 // a mebibyte
	from, ok := conn.(interface {
		NewBackup(uri string) (*sqlite.Backup, error)
	})
	if !ok {
		return errors.New("the driver makes no copies")
	}
	b, err := from.NewBackup(dsn(to))
	if err != nil {
		return err
	}
	for more := true; more; {
		if more, err = b.Step(pages); err == nil && more {
			err = ctx.Err()
		}
		if err != nil {
			_ = b.Finish()
			return err
		}
	}
	var written driver.Conn
	if written, err = b.Commit(); err != nil {
		return err
	}
	if err := written.Close(); err != nil {
		return err
	}
	f, err := os.Open(to)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// checkpoint implements engine: its rows are in the database.
func (s *sqliteRows) checkpoint(string) error { return nil }

// checkpoint implements engine.
func (p *pebbleRows) checkpoint(dir string) error {
	to := filepath.Join(dir, "queues")
	return p.use("snapshot", func(n *instance) error {
		n.aside.set(to)
		defer n.aside.clear()
		if err := n.flushed(); err != nil {
			return err
		}
		if err := n.Checkpoint(to); err != nil {
			return unavailable("snapshot", err)
		}
		return attest(to)
	})
}

// flushed brings the log of everything that was written to the disk.
func (n *instance) flushed() error {
	n.commit.Lock()
	defer n.commit.Unlock()
	if err := n.guard.failed(); err != nil {
		return err
	}
	return n.LogData(nil, pebble.Sync)
}

// manifests names the manifests in a folder, the oldest first. The folder's name is not
// taken for a pattern.
func manifests(dir string) (names []string, err error) {
	list, err := os.ReadDir(dir)
	for _, e := range list {
		if strings.HasPrefix(e.Name(), "MANIFEST-") {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// attest writes the witness of a checkpoint.
func attest(dir string) error {
	names, err := manifests(dir)
	if err != nil {
		return unavailable("snapshot", err)
	}
	w := &witness{path: dir + ".manifests"}
	for _, name := range names {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return unavailable("snapshot", err)
		}
		sum := crc32.New(castagnoli)
		length, err := io.Copy(sum, f)
		if err = errors.Join(err, f.Close()); err == nil {
			err = w.note(witnessed{name, length, sum.Sum32()})
		}
		if err != nil {
			return unavailable("snapshot", err)
		}
	}
	return nil
}
