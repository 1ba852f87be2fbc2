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

// saying is a log of which a test awaits lines.
type saying chan string

func (s saying) Write(p []byte) (int, error) {
	s <- string(p)
	return len(p), nil
}

func newSaying() (saying, *slog.Logger) {
	s := make(saying, 1<<10)
	return s, slog.New(slog.NewTextHandler(s, nil))
}

// await takes lines until one has text.
func (s saying) await(t *testing.T, text string) string {
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

// connect is a session of a role in a schema.
func connect(t *testing.T, s *pgserver.Server, user, schema string) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig("sslmode=disable database=commucat")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Host, cfg.Port, cfg.User = s.Dir, uint16(s.Port), user
	cfg.RuntimeParams["search_path"] = schema
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// migrating is a schema that is at a version.
type migrating struct {
	*testing.T
	*pgserver.Server
	schema string
}

func (m *migrating) connect(user string) *pgx.Conn { return connect(m.T, m.Server, user, m.schema) }

func (m *migrating) migrator(files fs.FS, log *slog.Logger) *migrator {
	return &migrator{
		schema: m.schema, scripts: files, log: log, timeout: 10 * time.Second,
		lock: 50 * time.Millisecond, pause: 20 * time.Millisecond, wait: time.Minute, tell: time.Minute,
	}
}

func (m *migrating) run(files fs.FS) {
	m.T.Helper()
	if err := m.migrator(files, slog.New(slog.DiscardHandler)).run(m.Context(), m.connect("commucat")); err != nil {
		m.Fatal(err)
	}
}

func (m *migrating) want(version string) {
	m.T.Helper()
	if got := m.SQL("commucat", "SELECT max(version) FROM "+m.schema+".migration"); got != version {
		m.Errorf("version %s, want %s", got, version)
	}
}

func exec(t *testing.T, c *pgx.Conn, statement string) {
	t.Helper()
	if _, err := c.Exec(t.Context(), statement, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}

// TestMigrate: a change of the tables on a real server that others use as well.
func TestMigrate(t *testing.T) {
	t.Parallel()
	s := pgserver.Start(t)
	for _, tt := range []struct {
		name, schema string
		at           int
		test         func(*migrating)
	}{
		{"beside others", "beside", 2, (*migrating).besideOthers},
		{"gives up", "gives_up", 2, (*migrating).givesUp},
		{"one at a time", "one", 2, (*migrating).oneAtATime},
		{"killed", "killed", 3, (*migrating).killed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &migrating{t, s, tt.schema}
			m.run(first(t, tt.at))
			tt.test(m)
		})
	}
}

// besideOthers: somebody's transaction holds a table, as a dump does, for longer than a
// call may take. Others read it all the same while the store asks for it time and again,
// and when the transaction ends the store is there.
func (m *migrating) besideOthers() {
	m.SQL("commucat", "ALTER ROLE commucat SET statement_timeout = '1s'")
	defer m.SQL("commucat", "ALTER ROLE commucat RESET statement_timeout")
	dump, reader := m.connect("postgres"), m.connect("postgres")
	exec(m.T, dump, "BEGIN; LOCK TABLE queue IN ACCESS SHARE MODE")
	told, log := newSaying()
	type opened struct {
		storage.Store
		err error
	}
	done := make(chan opened, 1)
	go func() {
		st, err := storage.Open(context.Background(), Plugin(), sdk.NewEnv(sdk.EnvOptions{Log: log}), map[string]any{"address": []any{m.Address()}, "schema": m.schema, "timeout": "1s"})
		done <- opened{st, err}
	}()
	told.await(m.T, `msg="migrating the database" schema=beside version=3`)
	told.await(m.T, "the migration is tried again")
	exec(m.T, reader, "SELECT FROM queue") // or the test hangs
	exec(m.T, dump, "COMMIT")
	o := <-done
	if o.err != nil {
		m.Fatal(o.err)
	}
	defer o.Close(context.Background())
	told.await(m.T, `msg="database migrated" schema=beside version=3`)
	m.want("3")
}

// givesUp: waiting for tables has an end, which says what to do, and changes nothing.
func (m *migrating) givesUp() {
	dump, conn := m.connect("postgres"), m.connect("commucat")
	exec(m.T, dump, "BEGIN; LOCK TABLE queue IN ACCESS SHARE MODE")
	r := m.migrator(first(m.T, 3), slog.New(slog.DiscardHandler))
	r.wait = 300 * time.Millisecond
	err := r.run(m.Context(), conn)
	if !errors.Is(err, sdk.Unavailable) || !strings.Contains(err.Error(), "migrate to version 3") || !strings.Contains(err.Error(), "end their transactions") {
		m.Errorf("%v", err)
	}
	m.want("2")
	exec(m.T, dump, "COMMIT")
	if err := r.run(m.Context(), conn); err != nil {
		m.Error(err)
	}
	// The lock was given back, and a role that may make nothing is no hindrance any more.
	m.SQL("commucat", "ALTER DATABASE commucat OWNER TO postgres")
	defer m.SQL("commucat", "ALTER DATABASE commucat OWNER TO commucat")
	if err := r.run(m.Context(), m.connect("commucat")); err != nil {
		m.Error(err)
	}
}

// oneAtATime: a second relay that starts meanwhile waits and says for whom. At its bound
// it ends with that as the reason; else it goes on when the first is done.
func (m *migrating) oneAtATime() {
	one, two, gate := m.connect("commucat"), m.connect("commucat"), m.connect("postgres")
	exec(m.T, gate, "SELECT pg_advisory_lock(1)") // the first relay's work lasts until this is given back
	files := first(m.T, 3, "SET LOCAL lock_timeout = 0; CREATE TABLE half (); SELECT pg_advisory_xact_lock(1); CREATE TABLE whole ()")
	told, log := newSaying()
	r := m.migrator(files, log)
	r.tell = 10 * time.Millisecond
	ended := make(chan error, 1)
	go func() { ended <- r.run(context.Background(), one) }()
	told.await(m.T, "the migration goes on")

	late, log := newSaying()
	r = m.migrator(files, log)
	r.wait = 100 * time.Millisecond
	pid := strconv.FormatUint(uint64(one.PgConn().PID()), 10)
	if err := r.run(m.Context(), two); !errors.Is(err, sdk.Unavailable) || !strings.Contains(err.Error(), "another relay is still migrating") || !strings.Contains(err.Error(), pid) {
		m.Errorf("at its bound: %v", err)
	}
	r.wait = time.Minute
	waiting := make(chan error, 1)
	go func() { waiting <- r.run(context.Background(), two) }()
	late.await(m.T, "server_process="+pid)
	exec(m.T, gate, "SELECT pg_advisory_unlock(1)")
	if err := errors.Join(<-ended, <-waiting); err != nil {
		m.Error(err)
	}
	m.want("4")
	if n := m.SQL("commucat", "SELECT count(*) FROM "+m.schema+".migration"); n != "4" {
		m.Errorf("%s migrations were noted", n)
	}
}

// killed: the server, the relay or the line between them ends in the middle. Nothing is
// half done, and the next start does it all.
func (m *migrating) killed() {
	const script = "CREATE TABLE half (); INSERT INTO migration VALUES (77); SELECT pg_sleep(600)"
	for _, end := range []struct {
		name string
		kill func(stop context.CancelFunc, line net.Conn)
	}{
		{"the server is killed", func(context.CancelFunc, net.Conn) { m.Kill(); m.Server.Run() }},
		{"the start is given up", func(stop context.CancelFunc, _ net.Conn) { stop() }},
		{"the relay is killed", func(_ context.CancelFunc, line net.Conn) { _ = line.Close() }},
	} {
		ctx, stop := context.WithCancel(m.Context())
		defer stop()
		told, log := newSaying()
		r := m.migrator(first(m.T, 3, script), log)
		r.tell = 10 * time.Millisecond
		ended := make(chan error, 1)
		conn := m.connect("commucat")
		go func() { ended <- r.run(ctx, conn) }()
		told.await(m.T, "the migration goes on")
		end.kill(stop, conn.PgConn().Conn())
		if err := <-ended; !errors.Is(err, sdk.Unavailable) {
			m.Errorf("%s: %v", end.name, err)
		}
		m.want("3")
		// The lock was given back with the connection, and so was everything made.
		r = m.migrator(first(m.T, 3, "CREATE TABLE half (); DROP TABLE half; SELECT 1/0"), log)
		if err := r.run(m.Context(), m.connect("commucat")); err == nil || !strings.Contains(err.Error(), "division by zero") {
			m.Errorf("%s: the next one: %v", end.name, err)
		}
	}
	m.run(first(m.T, 3, strings.Replace(script, "600", "0", 1)))
	m.want("77")
}
