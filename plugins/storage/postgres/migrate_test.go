package postgres

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// said is a log of which a test awaits lines.
type said chan string

func (s said) Write(p []byte) (int, error) {
	s <- string(p)
	return len(p), nil
}

func newSaid() (said, *slog.Logger) {
	s := make(said, 1<<10)
	return s, slog.New(slog.NewTextHandler(s, nil))
}

// await takes lines until one has text.
func (s said) await(t *testing.T, text string) string {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	var all strings.Builder
	for {
		select {
		case l := <-s:
			if all.WriteString(l); strings.Contains(l, text) {
				return l
			}
		case <-limit.C:
			t.Fatalf("the log has no %q:\n%s", text, all.String())
		}
	}
}

// first are the scripts up to a version; more are added behind them.
func first(t *testing.T, n int, more ...string) fs.FS {
	t.Helper()
	names, err := fs.Glob(scripts, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	out := fstest.MapFS{}
	for _, name := range names[:n] {
		b, err := fs.ReadFile(scripts, name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = &fstest.MapFile{Data: b}
	}
	for i, text := range more {
		out["migrations/9"+strconv.Itoa(i)+".sql"] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

// connect is a session of the relay's role, or of the superuser.
func connect(t *testing.T, s *pgserver.Server, user string) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig("sslmode=disable database=commucat")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Host, cfg.Port, cfg.User = s.Dir, uint16(s.Port), user
	cfg.RuntimeParams["search_path"] = "commucat"
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func migratorOf(files fs.FS, log *slog.Logger) *migrator {
	return &migrator{
		schema: "commucat", scripts: files, log: log, timeout: 10 * time.Second,
		lock: 50 * time.Millisecond, pause: 20 * time.Millisecond, wait: time.Minute, tell: time.Minute,
	}
}

func migrate(t *testing.T, s *pgserver.Server, files fs.FS) {
	t.Helper()
	if err := migratorOf(files, slog.New(slog.DiscardHandler)).run(t.Context(), connect(t, s, "commucat")); err != nil {
		t.Fatal(err)
	}
}

func version(s *pgserver.Server) string {
	return s.SQL("commucat", "SELECT max(version) FROM commucat.migration")
}

func exec(t *testing.T, c *pgx.Conn, statement string) {
	t.Helper()
	if _, err := c.Exec(t.Context(), statement, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}

// TestMigrateBesideOthers: somebody's transaction holds a table, as a dump does, for
// longer than a call may take. Others read it all the same while the store asks for it
// time and again, and when the transaction ends the store is there.
func TestMigrateBesideOthers(t *testing.T) {
	t.Parallel()
	s := pgserver.Start(t)
	migrate(t, s, first(t, 2))
	s.SQL("commucat", "ALTER ROLE commucat SET statement_timeout = '1s'")
	dump, reader := connect(t, s, "postgres"), connect(t, s, "postgres")
	exec(t, dump, "BEGIN; LOCK TABLE queue IN ACCESS SHARE MODE")
	told, log := newSaid()
	type opened struct {
		storage.Store
		err error
	}
	done := make(chan opened, 1)
	go func() {
		st, err := storage.Open(context.Background(), Plugin(), sdk.NewEnv(sdk.EnvOptions{Log: log}), map[string]any{"address": []any{s.Address()}, "timeout": "1s"})
		done <- opened{st, err}
	}()
	told.await(t, `msg="migrating the database" schema=commucat version=3`)
	told.await(t, "the migration is tried again")
	exec(t, reader, "SELECT FROM queue") // or the test hangs
	exec(t, dump, "COMMIT")
	o := <-done
	if o.err != nil {
		t.Fatal(o.err)
	}
	defer o.Close(context.Background())
	told.await(t, `msg="database migrated" schema=commucat version=3`)
	if err := o.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestMigrateGivesUp: waiting for tables has an end, which says what to do, and changes
// nothing.
func TestMigrateGivesUp(t *testing.T) {
	t.Parallel()
	s := pgserver.Start(t)
	migrate(t, s, first(t, 2))
	dump, conn := connect(t, s, "postgres"), connect(t, s, "commucat")
	exec(t, dump, "BEGIN; LOCK TABLE queue IN ACCESS SHARE MODE")
	m := migratorOf(first(t, 3), slog.New(slog.DiscardHandler))
	m.wait = 300 * time.Millisecond
	err := m.run(t.Context(), conn)
	if !errors.Is(err, sdk.Unavailable) || !strings.Contains(err.Error(), "migrate to version 3") || !strings.Contains(err.Error(), "end their transactions") {
		t.Errorf("%v", err)
	}
	if v := version(s); v != "2" {
		t.Errorf("version %s", v)
	}
	exec(t, dump, "COMMIT")
	if err := m.run(t.Context(), conn); err != nil {
		t.Error(err)
	}
	// The lock was given back, and a role that may make nothing is no hindrance any more.
	s.SQL("commucat", "REVOKE CREATE ON DATABASE commucat FROM PUBLIC; ALTER DATABASE commucat OWNER TO postgres")
	if err := m.run(t.Context(), connect(t, s, "commucat")); err != nil {
		t.Error(err)
	}
}

// TestMigrateOneAtATime: a second relay that starts meanwhile waits and says for whom. At
// its bound it ends with that as the reason; else it goes on when the first is done.
func TestMigrateOneAtATime(t *testing.T) {
	t.Parallel()
	s := pgserver.Start(t)
	migrate(t, s, first(t, 2))
	one, two := connect(t, s, "commucat"), connect(t, s, "commucat")
	gate := connect(t, s, "postgres")
	exec(t, gate, "SELECT pg_advisory_lock(1)") // the first relay's work lasts until this is given back
	files := first(t, 3, "SET LOCAL lock_timeout = 0; CREATE TABLE half (); SELECT pg_advisory_xact_lock(1); CREATE TABLE whole ()")
	told, log := newSaid()
	m := migratorOf(files, log)
	m.tell = 10 * time.Millisecond
	ended := make(chan error, 1)
	go func() { ended <- m.run(context.Background(), one) }()
	told.await(t, "the migration goes on")

	late, log := newSaid()
	m = migratorOf(files, log)
	m.wait = 100 * time.Millisecond
	pid := strconv.FormatUint(uint64(one.PgConn().PID()), 10)
	if err := m.run(t.Context(), two); !errors.Is(err, sdk.Unavailable) || !strings.Contains(err.Error(), "another relay is still migrating") || !strings.Contains(err.Error(), pid) {
		t.Errorf("at its bound: %v", err)
	}
	m.wait = time.Minute
	waiting := make(chan error, 1)
	go func() { waiting <- m.run(context.Background(), two) }()
	late.await(t, "server_process="+pid)
	exec(t, gate, "SELECT pg_advisory_unlock(1)")
	if err := errors.Join(<-ended, <-waiting); err != nil {
		t.Error(err)
	}
	if v := version(s); v != "4" {
		t.Errorf("version %s", v)
	}
	if n := s.SQL("commucat", "SELECT count(*) FROM commucat.migration"); n != "4" {
		t.Errorf("%s migrations were noted", n)
	}
}

// TestMigrateKilled: the server, the relay or the line between them ends in the middle. Nothing is half done,
// and the next start does it all.
func TestMigrateKilled(t *testing.T) {
	t.Parallel()
	s := pgserver.Start(t)
	migrate(t, s, first(t, 3))
	const script = "CREATE TABLE half (); INSERT INTO migration VALUES (77); SELECT pg_sleep(600)"
	for _, end := range []struct {
		name string
		kill func(stop context.CancelFunc, line net.Conn)
	}{
		{"the server is killed", func(context.CancelFunc, net.Conn) { s.Kill(); s.Run() }},
		{"the start is given up", func(stop context.CancelFunc, _ net.Conn) { stop() }},
		{"the relay is killed", func(_ context.CancelFunc, line net.Conn) { _ = line.Close() }},
	} {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		told, log := newSaid()
		m := migratorOf(first(t, 3, script), log)
		m.tell = 10 * time.Millisecond
		ended := make(chan error, 1)
		conn := connect(t, s, "commucat")
		go func() { ended <- m.run(ctx, conn) }()
		told.await(t, "the migration goes on")
		end.kill(stop, conn.PgConn().Conn())
		if err := <-ended; !errors.Is(err, sdk.Unavailable) {
			t.Errorf("%s: %v", end.name, err)
		}
		if v := version(s); v != "3" {
			t.Errorf("%s: version %s", end.name, v)
		}
		// The lock was given back with the connection, and so was everything made.
		m = migratorOf(first(t, 3, "CREATE TABLE half (); DROP TABLE half; DELETE FROM migration WHERE version = 4; SELECT 1/0"), log)
		if err := m.run(t.Context(), connect(t, s, "commucat")); err == nil || !strings.Contains(err.Error(), "division by zero") {
			t.Errorf("%s: the next one: %v", end.name, err)
		}
	}
	migrate(t, s, first(t, 3, strings.Replace(script, "600", "0", 1)))
	if v := version(s); v != "77" {
		t.Errorf("version %s", v)
	}
}
