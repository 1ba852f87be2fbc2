package postgres_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest/proxy"
	"github.com/commucat/commucat/sdk/storage"
)

// faulty is a store whose line to the server can be cut.
type faulty struct {
	storage.Store
	t      *testing.T
	server *pgserver.Server
	line   *proxy.Proxy
	schema string
}

// write stores rows first..last of a queue, one batch each, and repeats a batch until
// it is answered, as the relay does. It returns how many calls failed.
func (f *faulty) write(queue string, first, last uint64) (failed int) {
	f.t.Helper()
	end := time.Now().Add(30 * time.Second)
	for n := first; n <= last; n++ {
		row := storage.Append{Queue: queue, Payload: []byte(strconv.FormatUint(n, 10)), Expires: time.Now().Add(time.Hour)}
		binary.BigEndian.PutUint64(row.ID[8:], n)
		for {
			ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
			out, err := f.Queues.Append(ctx, time.Now(), storage.Batch{Rows: []storage.Append{row}})
			cancel()
			if err == nil && out[0].Err == nil {
				break
			}
			if failed++; !errors.Is(err, sdk.Unavailable) || time.Now().After(end) {
				f.t.Fatalf("row %d: %v", n, err)
			}
			time.Sleep(10 * time.Millisecond) // the server is another process
		}
	}
	return failed
}

// check reads the queue: every row is there, once, in order.
func (f *faulty) check(queue string, last uint64) {
	f.t.Helper()
	rows, err := f.Queues.Read(f.t.Context(), time.Now(), queue, 0, storage.Page{Messages: int(last) + 10})
	if err != nil {
		f.t.Fatal(err)
	}
	if uint64(len(rows)) != last {
		f.t.Fatalf("%d rows of %d", len(rows), last)
	}
	for i, r := range rows {
		if string(r.Payload) != strconv.Itoa(i+1) {
			f.t.Fatalf("row %s in place %d", r.Payload, i+1)
		}
	}
	if d, err := f.Queues.Depths(f.t.Context(), []string{queue}); err != nil || d[0].Messages != last {
		f.t.Errorf("depth %v %v, want %d", d, err, last)
	}
}

func (f *faulty) sql(statement string) string { return f.server.SQL("commucat", statement) }

// TestFaults: whatever becomes of the server, what was answered is there, once and in
// order, and the store goes on by itself.
func TestFaults(t *testing.T) {
	s := pgserver.Start(t, "deadlock_timeout = 50ms")
	line := proxy.Start(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)))
	tests := []struct {
		name string
		// fault happens while rows are written, or before if it lasts.
		fault func(f *faulty) (end func())
		fails bool // at least one call must fail
		lasts bool // fault returns what ends it
	}{
		{"killed in mid-commit", func(f *faulty) func() { f.server.Kill(); f.server.Run(); return nil }, true, false},
		{"restarted", func(f *faulty) func() { f.server.Stop(); f.server.Run(); return nil }, true, false},
		{"connections cut", func(f *faulty) func() { f.line.Cut(); return nil }, true, false},
		{"slow by 500 ms", func(f *faulty) func() {
			f.line.Slow(500 * time.Millisecond)
			time.Sleep(time.Second) // as long as one batch is under way
			f.line.Slow(0)
			return nil
		}, false, false},
		{"serialization failure", func(f *faulty) func() {
			f.sql("CREATE FUNCTION " + f.schema + ".refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'try again' USING ERRCODE = '40001'; END$$; " +
				"CREATE TRIGGER refuse BEFORE INSERT ON " + f.schema + ".message FOR EACH ROW EXECUTE FUNCTION " + f.schema + ".refuse()")
			return func() { f.sql("DROP TRIGGER refuse ON " + f.schema + ".message") }
		}, true, true},
		{"read-only", func(f *faulty) func() {
			f.sql("ALTER ROLE commucat SET default_transaction_read_only = on")
			f.line.Cut()
			notReady(f, "")
			return func() { f.sql("ALTER ROLE commucat RESET default_transaction_read_only") }
		}, true, true},
		{"disk full", func(f *faulty) func() { fillDisk(f); return nil }, false, false},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := &faulty{t: t, server: s, line: line, schema: "f" + strconv.Itoa(i)}
			var err error
			f.Store, err = storage.Open(t.Context(), postgres.Plugin(), nil, map[string]any{"address": []any{line.Address()}, "schema": f.schema, "timeout": "5s"})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close(context.Background())
			const before, after = 20, 60
			f.write("q", 1, before)
			failed := make(chan int, 1)
			write := func() { failed <- f.write("q", before+1, after) }
			var end func()
			if test.lasts { // before it has begun all might be written
				end = test.fault(f)
				go write()
			} else {
				go write()
				end = test.fault(f)
			}
			if end != nil {
				select {
				case n := <-failed:
					t.Fatalf("all was written in spite of the fault, %d calls failed", n)
				case <-time.After(200 * time.Millisecond): // it is refused meanwhile
				}
				end()
			}
			if n := <-failed; test.fails && n == 0 && end != nil {
				t.Error("no call failed")
			}
			f.check("q", after)
			if err := f.Ready(t.Context()); err != nil {
				t.Errorf("not ready afterwards: %v", err)
			}
		})
	}
}

// notReady waits until the store says why it is not ready.
func notReady(f *faulty, why string) {
	f.t.Helper()
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = f.Ready(f.t.Context()); err != nil && strings.Contains(err.Error(), why) {
			return
		}
	}
	f.t.Errorf("ready: %v, want one with %q", err, why)
}

// fillDisk puts the messages on a file system of 1 MiB and fills it.
func fillDisk(f *faulty) {
	dir := filepath.Join(f.server.Dir, "small")
	if err := os.Mkdir(dir, 0o777); err != nil {
		f.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=777"); err != nil {
		f.t.Skipf("a file system cannot be mounted here: %v", err)
	}
	f.t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			f.t.Error(err)
		}
	})
	owner, err := os.Stat(f.server.Dir) // the server's user
	if err == nil {
		st := owner.Sys().(*syscall.Stat_t)
		err = os.Chown(dir, int(st.Uid), int(st.Gid))
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		f.sql("DROP SCHEMA " + f.schema + " CASCADE")
		f.sql("DROP TABLESPACE small")
	})
	f.sql("CREATE TABLESPACE small LOCATION '" + dir + "'")
	f.sql("ALTER TABLE " + f.schema + ".message SET TABLESPACE small")
	big := storage.Append{Queue: "big", Payload: make([]byte, 512<<10), Expires: time.Now().Add(time.Hour)}
	put := func() error {
		big.ID[0]++
		_, err := f.Queues.Append(f.t.Context(), time.Now(), storage.Batch{Rows: []storage.Append{big}})
		return err
	}
	// Small rows still find room in the pages that are there, and then it is ready again.
	for tries, full := 0, false; !full; tries++ {
		err := put()
		if err != nil && (!errors.Is(err, sdk.Unavailable) || !strings.Contains(err.Error(), "disk is full")) || tries == 100 {
			f.t.Fatalf("%v", err)
		}
		err = f.Ready(f.t.Context())
		full = err != nil && strings.Contains(err.Error(), "disk is full")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		f.t.Fatal(err)
	}
	if err := f.Ready(f.t.Context()); err != nil {
		f.t.Errorf("there is room again: %v", err)
	}
	if err := put(); err != nil {
		f.t.Error(err)
	}
}

// TestRefusals: what the server or the store refuses, and that it is said.
func TestRefusals(t *testing.T) {
	s := pgserver.Start(t, "deadlock_timeout = 50ms")
	open := func(change map[string]any) (storage.Store, error) {
		raw := map[string]any{"address": []any{s.Address()}}
		for k, v := range change {
			raw[k] = v
		}
		return storage.Open(t.Context(), postgres.Plugin(), nil, raw)
	}
	st, err := open(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close(context.Background())
	t.Run("deadlock", func(t *testing.T) { deadlock(t, s, st) })
	t.Run("clocks that differ", func(t *testing.T) { skew(t, st) })
	t.Run("the first address is silent", func(t *testing.T) {
		// It takes connections and says nothing: the next one gets enough of a call's time.
		silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		st, err := open(map[string]any{"address": []any{silent.Addr().String(), s.Address()}, "timeout": "4s"})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close(context.Background())
		if _, err := put(t.Context(), st, "q", 1); err != nil {
			t.Error(err)
		}
	})
	t.Run("wrong password", func(t *testing.T) {
		s.Guard("guarded", "right")
		tcp := []any{net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))}
		_, err := open(map[string]any{"address": tcp, "user": "guarded", "password": "wrong word"})
		if !errors.Is(err, sdk.Denied) || !strings.Contains(err.Error(), "password") || strings.Contains(err.Error(), "wrong word") {
			t.Errorf("%v", err)
		}
	})
	t.Run("password changed while it runs", func(t *testing.T) { passwordChanged(t, s) })
	t.Run("newer schema", func(t *testing.T) {
		s.SQL("commucat", "INSERT INTO commucat.migration (version) VALUES (999)")
		defer s.SQL("commucat", "DELETE FROM commucat.migration WHERE version = 999")
		if _, err := open(nil); !errors.Is(err, sdk.Unsupported) || !strings.Contains(err.Error(), "newer version") {
			t.Errorf("%v", err)
		}
	})
	t.Run("not durable", func(t *testing.T) {
		s.SQL("postgres", "ALTER SYSTEM SET fsync = off")
		s.SQL("postgres", "SELECT pg_reload_conf()")
		defer func() {
			s.SQL("postgres", "ALTER SYSTEM RESET fsync")
			s.SQL("postgres", "SELECT pg_reload_conf()")
		}()
		var err error
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if _, err = open(map[string]any{"schema": "other"}); err != nil {
				break
			}
		}
		if !errors.Is(err, sdk.Invalid) || !strings.Contains(err.Error(), "fsync = off") {
			t.Errorf("%v", err)
		}
	})
}

// passwordChanged: the operator changes the password at the server first. The store says
// what is wrong until it is right again, and goes on by itself.
func passwordChanged(t *testing.T, s *pgserver.Server) {
	s.Guard("changed", "right")
	s.SQL("postgres", "GRANT CREATE ON DATABASE commucat TO changed")
	st, err := storage.Open(t.Context(), postgres.Plugin(), nil, map[string]any{
		"address": []any{net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))}, "user": "changed", "password": "right", "schema": "changed",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close(context.Background())
	putAlways(t, st, "q", 1)
	s.SQL("postgres", "ALTER ROLE changed PASSWORD 'another'")
	s.SQL("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'changed'")
	waitFor(t, "the store says so", func() bool {
		_, err := put(t.Context(), st, "q", 2)
		return errors.Is(err, sdk.Denied) && strings.Contains(err.Error(), "password") && errors.Is(st.Ready(t.Context()), sdk.Denied)
	})
	s.SQL("postgres", "ALTER ROLE changed PASSWORD 'right'")
	if _, err := put(t.Context(), st, "q", 2); err != nil {
		t.Error(err)
	}
	if err := st.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// session is another program's, of the superuser.
func session(t *testing.T, s *pgserver.Server) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig("sslmode=disable user=postgres database=commucat")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Host, cfg.Port = s.Dir, uint16(s.Port)
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// deadlock: another session locks two queues in the other order. The server sacrifices
// the store's transaction, and the batch is repeated.
func deadlock(t *testing.T, s *pgserver.Server, st storage.Store) {
	row := func(queue string, id byte) storage.Append {
		return storage.Append{Queue: queue, ID: [16]byte{id}, Payload: []byte("x"), Expires: time.Now().Add(time.Hour)}
	}
	batch := func(id byte) storage.Batch { return storage.Batch{Rows: []storage.Append{row("a", id), row("b", id)}} }
	if _, err := st.Queues.Append(t.Context(), time.Now(), batch(1)); err != nil {
		t.Fatal(err)
	}
	other := session(t, s)
	exec := func(statement string) error { _, err := other.Exec(t.Context(), statement); return err }
	// The other session looks for the circle only after the store has.
	if err := errors.Join(exec("BEGIN"), exec("SET LOCAL deadlock_timeout = '1min'"), exec("UPDATE commucat.queue SET last = last WHERE name = 'b'")); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := st.Queues.Append(context.Background(), time.Now(), batch(2))
		failed <- err
	}()
	for s.SQL("commucat", "SELECT count(*) FROM pg_locks WHERE NOT granted") == "0" {
		time.Sleep(5 * time.Millisecond)
	}
	if err := exec("UPDATE commucat.queue SET last = last WHERE name = 'a'"); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, sdk.Unavailable) {
		t.Errorf("%v", err)
	}
	if err := exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	out, err := st.Queues.Append(t.Context(), time.Now(), batch(2))
	if err != nil || out[0].Duplicate || out[1].Err != nil {
		t.Errorf("repeated: %+v %v", out, err)
	}
}

// skew: nodes whose clocks are an hour apart write to one queue in turn; positions
// grow all the same, and nothing expires early.
func skew(t *testing.T, st storage.Store) {
	var last uint64
	for i := range byte(20) {
		now := time.Now().Add(time.Duration(int(i)%3-1) * time.Hour)
		out, err := st.Queues.Append(t.Context(), now, storage.Batch{Rows: []storage.Append{{Queue: "skew", ID: [16]byte{i}, Expires: now.Add(14 * 24 * time.Hour)}}})
		if err != nil || out[0].Position <= last {
			t.Fatalf("position %d after %d: %v", out[0].Position, last, err)
		}
		last = out[0].Position
	}
	rows, err := st.Queues.Read(t.Context(), time.Now().Add(time.Hour), "skew", 0, storage.Page{Messages: 100})
	if err != nil || len(rows) != 20 {
		t.Errorf("%d rows: %v", len(rows), err)
	}
}
