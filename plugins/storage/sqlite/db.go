package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"runtime"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// database is one SQLite file: one goroutine that writes, a few readers.
type database struct {
	path     string
	log      *slog.Logger
	degraded func(error)

	jobs chan *job
	stop chan struct{}
	gone chan struct{} // closed when the writer has ended

	mu      sync.RWMutex
	readers *sql.DB
	failed  error // the writer's last failure; nil when it works
}

// job is one caller's part of a transaction. run must check before it writes: an
// error of kind Conflict or Invalid means that it has written nothing.
type job struct {
	run  func(*tx) error
	err  error
	done chan struct{}
}

// tx is the transaction under way, with its connection's prepared statements.
type tx struct {
	conn       *sql.Conn
	statements map[string]*sql.Stmt
}

const (
	maxJobs    = 512
	maxReaders = 4
)

func dsn(path string, pragmas ...string) string {
	q := url.Values{"_pragma": pragmas}
	// Without "//": what follows that in a relative path would be a host.
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

func connect(dsn string, conns int) (*sql.DB, error) {
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

func openDatabase(ctx context.Context, path string, log *slog.Logger, degraded func(error)) (*database, error) {
	d := &database{
		path: path, log: log, degraded: degraded,
		jobs: make(chan *job, maxJobs), stop: make(chan struct{}), gone: make(chan struct{}),
	}
	w, err := d.openWriter(ctx)
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, w.conn); err != nil {
		w.close()
		return nil, err
	}
	d.readers, err = connect(dsn(path, "busy_timeout(5000)", "query_only(1)", "cache_size(-1024)"), min(maxReaders, 2*runtime.NumCPU()))
	if err != nil {
		w.close()
		return nil, err
	}
	go d.write(w)
	return d, nil
}

// writer is the writing connection.
type writer struct {
	pool *sql.DB
	tx
}

func (d *database) openWriter(ctx context.Context) (*writer, error) {
	pool, err := connect(dsn(d.path, "busy_timeout(5000)", "journal_mode(wal)", "synchronous(full)",
		"journal_size_limit(67108864)", "wal_autocheckpoint(2000)", "cache_size(-4096)", "temp_store(memory)"), 1)
	if err != nil {
		return nil, err
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		_ = pool.Close()
		return nil, plain(d.path, err)
	}
	w := &writer{pool: pool, tx: tx{conn: conn, statements: make(map[string]*sql.Stmt)}}
	var mode string
	if err = conn.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err == nil && mode != "wal" {
		err = fmt.Errorf("journal mode is %q, want wal", mode)
	}
	// Bring what an earlier process left in the log into the file, and start the
	// log anew: frames that a failed sync left behind must not be trusted.
	if err == nil {
		_, err = conn.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	}
	if err != nil {
		w.close()
		return nil, plain(d.path, err)
	}
	return w, nil
}

func (w *writer) close() {
	for _, s := range w.statements {
		_ = s.Close()
	}
	_ = w.conn.Close()
	_ = w.pool.Close()
}

// do runs f in a transaction of the writer and returns when it is committed.
func (d *database) do(ctx context.Context, f func(*tx) error) error {
	j := &job{run: f, done: make(chan struct{})}
	select {
	case d.jobs <- j:
	case <-d.gone:
		return storage.ErrClosed
	case <-ctx.Done():
		return unavailable("commit", ctx.Err())
	}
	select {
	case <-j.done:
		return j.err
	case <-d.gone:
		select {
		case <-j.done:
			return j.err
		default:
			return storage.ErrClosed
		}
	}
}

// write is the writer goroutine.
func (d *database) write(w *writer) {
	defer close(d.gone)
	for {
		var first *job
		select {
		case first = <-d.jobs:
		case <-d.stop:
			select {
			case first = <-d.jobs:
			default:
				if w != nil {
					w.close()
				}
				return
			}
		}
		jobs := append(make([]*job, 0, 16), first)
	gather:
		for len(jobs) < maxJobs {
			select {
			case j := <-d.jobs:
				jobs = append(jobs, j)
			default:
				break gather
			}
		}
		w = d.group(w, jobs)
	}
}

// group commits jobs as one transaction. After a failure that may have reached the
// disk the connection is replaced; nil when that does not work yet.
func (d *database) group(w *writer, jobs []*job) *writer {
	ctx := context.Background()
	if w == nil {
		var err error
		if w, err = d.openWriter(ctx); err != nil {
			finish(jobs, unavailable("reopen", err))
			return nil
		}
		d.report(nil)
	}
	err := w.transact(ctx, jobs)
	if err == nil {
		finish(jobs, nil)
		if d.failure() != nil {
			d.report(nil)
		}
		return w
	}
	err = plain(d.path, err)
	finish(jobs, err)
	d.report(err)
	w.close()
	return nil
}

// transact leaves refusals in the jobs; its error is everybody's.
func (w *writer) transact(ctx context.Context, jobs []*job) error {
	if _, err := w.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	for _, j := range jobs {
		j.err = j.run(&w.tx)
		if k := sdk.KindOf(j.err); j.err != nil && k != sdk.Conflict && k != sdk.Invalid && k != sdk.NotFound && k != sdk.Corrupt {
			_, _ = w.conn.ExecContext(ctx, "ROLLBACK")
			return j.err
		}
	}
	_, err := w.conn.ExecContext(ctx, "COMMIT")
	if err != nil {
		_, _ = w.conn.ExecContext(ctx, "ROLLBACK")
	}
	return err
}

func finish(jobs []*job, err error) {
	for _, j := range jobs {
		if err != nil {
			j.err = err
		}
		close(j.done)
	}
}

func (d *database) report(err error) {
	d.mu.Lock()
	d.failed = err
	d.mu.Unlock()
	if err != nil {
		d.log.Error("database_failed", "error", err)
	} else {
		d.log.Info("database_recovered")
	}
	d.degraded(err)
}

func (d *database) failure() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.failed
}

// ready tries the writer again if it failed.
func (d *database) ready(ctx context.Context) error {
	if d.failure() == nil {
		return nil
	}
	return d.do(ctx, func(*tx) error { return nil })
}

func (d *database) close() error {
	close(d.stop)
	<-d.gone
	return d.readers.Close()
}

// exec runs a statement of the transaction, prepared once per connection.
func (t *tx) exec(query string, args ...any) error {
	s, err := t.prepare(query)
	if err == nil {
		_, err = s.Exec(args...)
	}
	return err
}

func (t *tx) prepare(query string) (*sql.Stmt, error) {
	if s := t.statements[query]; s != nil {
		return s, nil
	}
	s, err := t.conn.PrepareContext(context.Background(), query)
	if err == nil {
		t.statements[query] = s
	}
	return s, err
}

// plain turns SQLite's errors into ones of this kind of plugin, on one line.
func plain(op string, err error) error {
	var own *storage.Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	var s *sqlite.Error
	if !errors.As(err, &s) {
		return unavailable(op, err)
	}
	switch s.Code() & 0xff {
	case lib.SQLITE_NOTADB, lib.SQLITE_CORRUPT:
		return &storage.Error{Kind: sdk.Corrupt, Op: op, Text: "the file is damaged or no database; restore it from a backup"}
	case lib.SQLITE_CANTOPEN:
		return unavailable(op, errors.New("cannot be opened; is the folder there and writable?"))
	case lib.SQLITE_READONLY:
		return unavailable(op, errors.New("cannot be written; check owner and mode of the file and its folder"))
	case lib.SQLITE_FULL:
		return unavailable(op, errors.New("the disk is full"))
	case lib.SQLITE_IOERR:
		return unavailable(op, fmt.Errorf("the disk is full or failing (SQLite error %d)", s.Code()))
	case lib.SQLITE_TOOBIG, lib.SQLITE_MISMATCH, lib.SQLITE_RANGE:
		return &storage.Error{Kind: sdk.Invalid, Op: op, Err: err}
	}
	return unavailable(op, err)
}

// within bounds a call that has no deadline.
func within(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, 30*time.Second)
}
