package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

//go:embed migrations/*.sql
var scripts embed.FS

// migrationLock is the advisory lock of migrations: "commucat" in ASCII.
const migrationLock = 0x636f6d6d75636174

// A migration asks for a table that others use for lockWait at a time, since whoever
// comes behind it waits as long; it is more than deadlock_timeout, after which the server
// sends its own vacuum away. In between others have lockPause for themselves. Waiting for
// tables and for another relay's migration ends after migrationWait; the work itself is
// bounded by who opens the store.
const (
	lockWait      = 3 * time.Second
	lockPause     = 2 * time.Second
	migrationWait = 10 * time.Minute
	tellEvery     = 30 * time.Second
)

// migrator brings a schema to the version of its scripts. Each script is one transaction
// with the note that it was run: nothing is ever half done.
type migrator struct {
	schema  string
	scripts fs.FS
	log     *slog.Logger
	// timeout bounds what neither waits for others nor depends on the tables' sizes.
	timeout                 time.Duration
	lock, pause, wait, tell time.Duration

	names []string
	end   time.Time // of waiting
}

// prepare checks the server and brings the schema to this version. Of several relays
// that start at once one migrates and the others wait.
func (s *store) prepare(ctx context.Context, schema string, log *slog.Logger) error {
	return opening(s.prepared(ctx, schema, log))
}

func (s *store) prepared(ctx context.Context, schema string, log *slog.Logger) error {
	conn, err := s.sound(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	m := migrator{
		schema: schema, scripts: scripts, log: log, timeout: s.timeout,
		lock: lockWait, pause: lockPause, wait: migrationWait, tell: tellEvery,
	}
	if err := m.run(ctx, conn.Conn()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.fits(ctx, conn.Conn()); err != nil {
		return err
	}
	// Connections that were made before the tables are of another history: they end.
	if err := s.inspect(ctx, conn); err != nil && !errors.Is(err, errReplaced) {
		return plain("connect", err)
	}
	return nil
}

// sound connects and sees that the server is one that can be relied on.
func (s *store) sound(ctx context.Context) (*pgxpool.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, plain("connect", err)
	}
	var version int
	err = conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version)
	switch {
	case err != nil:
		err = plain("connect", err)
	case version < 140000:
		err = &storage.Error{Kind: sdk.Unsupported, Err: errTooOld}
	}
	if err != nil {
		conn.Release()
		return nil, err
	}
	return conn, nil
}

func (m *migrator) run(ctx context.Context, conn *pgx.Conn) error {
	var err error
	if m.names, err = fs.Glob(m.scripts, "migrations/*.sql"); err != nil {
		return err
	}
	// Nothing to do, mostly: that needs no lock, and no right to make anything.
	at, err := m.version(ctx, conn)
	if err != nil || at == len(m.names) {
		return err
	}
	m.end = time.Now().Add(m.wait)
	if err := m.alone(ctx, conn); err != nil {
		return err
	}
	defer m.release(ctx, conn)
	if at, err = m.version(ctx, conn); err != nil {
		return err
	}
	// The server looks whether a relay is still there that waits for a long statement, and
	// breaks off; one whose system cannot look (it needs POLLRDHUP) refuses this.
	if err := m.short(ctx, conn, "SET client_connection_check_interval = '1s'"); conn.IsClosed() {
		return err
	}
	if at == 0 {
		if err := m.begin(ctx, conn); err != nil {
			return err
		}
	}
	for i, name := range m.names[at:] {
		script, err := fs.ReadFile(m.scripts, name)
		if err == nil {
			err = m.step(ctx, conn, string(script), at+i+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *migrator) short(ctx context.Context, conn *pgx.Conn, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	_, err := conn.Exec(ctx, statement)
	return plain("migrate", err)
}

// version is that of the schema, 0 where there is none yet.
func (m *migrator) version(ctx context.Context, conn *pgx.Conn) (at int, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	table := pgx.Identifier{m.schema, "migration"}.Sanitize()
	var there bool
	if err = conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", table).Scan(&there); err == nil && there {
		err = conn.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM "+table).Scan(&at)
	}
	if err == nil && at > len(m.names) {
		return 0, &storage.Error{Kind: sdk.Unsupported, Text: fmt.Sprintf("schema %s was made by a newer version (%d, this one knows %d); install that version", m.schema, at, len(m.names))}
	}
	return at, plain("migrate", err)
}

// begin makes what every version has. A schema that is there needs no right to make one.
func (m *migrator) begin(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	schema := pgx.Identifier{m.schema}.Sanitize()
	var there bool
	err := conn.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL", schema).Scan(&there)
	if err == nil && !there {
		_, err = conn.Exec(ctx, "CREATE SCHEMA "+schema)
	}
	if err != nil {
		return plain("make schema "+m.schema, err)
	}
	_, err = conn.Exec(ctx, "CREATE TABLE IF NOT EXISTS migration (version int PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())")
	return plain("migrate", err)
}

const (
	tryLock = "SELECT pg_try_advisory_lock($1)"
	// holderOf finds whose connection has an advisory lock (documentation, section 54.12).
	holderOf = `SELECT coalesce(max(pid), 0) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
	AND classid::bigint = $1::bigint >> 32 AND objid::bigint = $1::bigint & 4294967295`
)

// alone waits until no other relay migrates. It asks time and again: a statement that
// waits would hold back what clears away dead rows, and an index that is made meanwhile.
func (m *migrator) alone(ctx context.Context, conn *pgx.Conn) error {
	for told := (time.Time{}); ; {
		got, pid, err := m.try(ctx, conn)
		if err != nil || got {
			return err
		}
		now := time.Now()
		if now.After(m.end) {
			return &storage.Error{Kind: sdk.Unavailable, Op: "postgres: migrate", Text: fmt.Sprintf("another relay is still migrating the database after %v (server process %d): start this one again when that is done", m.wait, pid)}
		}
		if now.Sub(told) >= m.tell {
			told = now
			m.log.Info("another relay migrates the database; waiting until it is done", "schema", m.schema, "server_process", pid, "at_most", m.end.Sub(now).Round(time.Millisecond))
		}
		if err := pause(ctx, min(m.pause, time.Second)); err != nil {
			return plain("migrate", err)
		}
	}
}

func (m *migrator) try(ctx context.Context, conn *pgx.Conn) (got bool, pid int, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	if err = conn.QueryRow(ctx, tryLock, int64(migrationLock)).Scan(&got); err == nil && !got {
		err = conn.QueryRow(ctx, holderOf, int64(migrationLock)).Scan(&pid)
	}
	return got, pid, plain("migrate", err)
}

// release lets others migrate. A connection that cannot say so is closed, which does it
// as well.
func (m *migrator) release(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.timeout)
	defer cancel()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_unlock($1)", int64(migrationLock)); err != nil {
		_ = conn.Close(ctx) // what it says of that changes nothing
	}
}

// step runs one script, and again as long as others use its tables.
func (m *migrator) step(ctx context.Context, conn *pgx.Conn, script string, version int) error {
	log := m.log.With("schema", m.schema, "version", version)
	log.Info("migrating the database")
	began := time.Now()
	for {
		err := m.apply(ctx, conn, script, version, log)
		if err == nil {
			log.Info("database migrated", "took", time.Since(began).Round(time.Millisecond))
			return nil
		}
		op := fmt.Sprintf("migrate to version %d", version)
		if !inUse(err) {
			return unfit(plain(op, err))
		}
		if time.Now().Add(m.pause).After(m.end) {
			return &storage.Error{Kind: sdk.Unavailable, Op: "postgres: " + op, Text: fmt.Sprintf("others have been using the tables for %v: end their transactions (pg_stat_activity, xact_start), then start the relay again; nothing is changed", m.wait)}
		}
		log.Warn("a table is in use; the migration is tried again", "error", plain(op, err), "in", m.pause)
		if err := pause(ctx, m.pause); err != nil {
			return plain(op, err)
		}
	}
}

// unfit explains what a script says of tables that are not those of the version before.
func unfit(err error) error {
	var known *storage.Error
	var server *serverError
	if errors.As(err, &known) && errors.As(err, &server) && strings.HasPrefix(server.code, "42") && server.code != "42501" {
		return &storage.Error{Kind: sdk.Invalid, Op: known.Op, Text: "the version noted in the table migration does not fit the tables: restore the whole schema from its dump, or name an empty one", Err: known.Err}
	}
	return err
}

// inUse: a lock did not come in time, or this transaction was the one to give way.
func inUse(err error) bool {
	var said *pgconn.PgError
	return errors.As(err, &said) && (said.Code == "55P03" || said.Code == "40P01" || said.Code == "40001")
}

// apply runs one script and notes it, in one transaction. It may take long: who reads
// the log sees that it goes on.
func (m *migrator) apply(ctx context.Context, conn *pgx.Conn, script string, version int, log *slog.Logger) error {
	done := make(chan struct{})
	var telling sync.WaitGroup
	defer telling.Wait()
	defer close(done)
	telling.Go(func() {
		began, tick := time.Now(), time.NewTicker(m.tell)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				log.Info("the migration goes on", "since", time.Since(began).Round(time.Second))
			}
		}
	})
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// A role's own limit is meant for the calls of a relay that runs.
		limits := fmt.Sprintf("SET LOCAL lock_timeout = %d; SET LOCAL statement_timeout = 0", m.lock.Milliseconds())
		// The simple protocol takes several statements.
		if _, err := tx.Exec(ctx, limits, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, script, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "INSERT INTO migration (version) VALUES ($1)", version)
		return err
	})
}

// pause waits, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
