package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/commucat/commucat/core/pluginhost/sandbox"
	"github.com/commucat/commucat/core/transfer"
	"github.com/commucat/commucat/plugins/storage/postgres/pgserver"
	"github.com/commucat/commucat/plugins/storage/sqlite"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// openSQLite opens the built-in storage on a folder of its own.
func openSQLite(t *testing.T, dir string) storage.Store {
	t.Helper()
	s, err := storage.Open(t.Context(), sqlite.Plugin(), sdk.NewEnv(sdk.EnvOptions{State: dir}), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return s
}

// fill puts n messages for devices of a hundred messages each into a store, marks and
// records beside them.
func fill(t *testing.T, s storage.Store, n int) {
	t.Helper()
	now := time.Now()
	body := make([]byte, 256)
	var rows []storage.Append
	for i := range n {
		r := storage.Append{Queue: fmt.Sprintf("device-%06d", i%max(n/100, 1)), Payload: body, Expires: now.Add(time.Hour)}
		binary.BigEndian.PutUint64(r.ID[:], uint64(i)*0x9e3779b97f4a7c15)
		if rows = append(rows, r); len(rows) == 1024 || i == n-1 {
			marks := []storage.Mark{{Key: fmt.Sprintf("mark-%d", i), Value: []byte{1, 2, 3}}}
			out, err := s.Queues.Append(t.Context(), now, storage.Batch{Rows: rows, Marks: marks})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range out {
				if r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			rows = rows[:0]
		}
	}
	for i := range 300 {
		w := storage.Write{Key: storage.Key{Kind: fmt.Sprintf("kind-%d", i%3), ID: fmt.Sprint(i)}, Value: []byte("value")}
		if i%2 == 0 {
			w.Expires = now.Add(time.Hour)
		}
		if err := s.Directory.Commit(t.Context(), now, []storage.Write{w}); err != nil {
			t.Fatal(err)
		}
	}
}

// soak is big with COMMUCAT_SOAK=1, else small.
func soak(small, big int) int {
	if os.Getenv("COMMUCAT_SOAK") == "1" {
		return big
	}
	return small
}

// added puts a built plugin into a catalog of the test's own.
func added(t *testing.T, names ...string) {
	t.Helper()
	if k := sandbox.Probe(); !k.Complete() {
		t.Skipf("this kernel has no %s", k.Missing())
	}
	dir, err := os.MkdirTemp("", "cp-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("COMMUCAT_PLUGINS", dir)
	for _, name := range names {
		file := filepath.Join(dir, name)
		if err := os.Rename(buildPlugin(t, name), file); err != nil {
			t.Fatal(err)
		}
		if code, _, notes := commucat(t, "plugin", "add", file); code != exitOK {
			t.Fatalf("add: %d %s", code, notes)
		}
	}
}

// openFolder is dataFolder where the users of plugins may go.
func openFolder(t *testing.T, config string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	configure(t, dir, config)
	return dir
}

func configure(t *testing.T, dir, config string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "commucat.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestLoadStorageCopy moves a relay to a PostgreSQL server and back, by the programs: the
// digests are the same, and the messages that waited arrive from the other storage.
func TestLoadStorageCopy(t *testing.T) {
	if raceDetector {
		t.Skip("a plugin under the race detector needs more memory than it is allowed")
	}
	pg := pgserver.Start(t)
	added(t, "commucat-storage-postgres")
	server := fmt.Sprintf("[plugin.postgres]\naddress = [\"127.0.0.1:%d\"]\n", pg.Port)
	dir := openFolder(t, wide+server)
	srv := relay(t, dir)
	alice, bob := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	for handle, profile := range map[string]string{"alice": alice, "bob": bob} {
		if code, _, notes := commucat(t, "client", "register", "--server", srv.Invite, "--handle", handle, "--profile", profile); code != exitOK {
			t.Fatalf("register: %d %s", code, notes)
		}
	}
	for i := range 3 {
		if code, _, notes := commucat(t, "client", "send", "--profile", alice, "--to", "bob", fmt.Sprint("text ", i)); code != exitOK {
			t.Fatalf("send: %d %s", code, notes)
		}
	}
	try := func(from, to string) (code int, c copied, notes string) {
		t.Helper()
		code, out, notes := commucat(t, "storage", "copy", "--data", dir, "--from", from, "--to", to, "--json")
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &c); err != nil && code == exitOK {
			t.Fatalf("%q: %v", out, err)
		}
		return code, c, notes
	}
	if code, _, notes := try("sqlite", "postgres"); code != exitFailed || !strings.Contains(notes, "is used by another relay") {
		t.Fatalf("beside a running relay: %d %s", code, notes)
	}
	address := srv.address()
	if code := srv.terminate(t); code != exitOK {
		t.Fatalf("the relay ended with %d", code)
	}
	n := soak(3000, 1_000_000)
	folder := filepath.Join(dir, "plugins", "storage-sqlite")
	s := openSQLite(t, folder)
	fill(t, s, n)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	code, there, notes := try("sqlite", "postgres")
	if code != exitOK || there.Messages != uint64(n)+3 || there.Queues < 2 || there.Marks == 0 || there.Records < 300 || there.Resumed {
		t.Fatalf("code %d, %+v\n%s", code, there, notes)
	}
	t.Logf("sqlite to postgres: %+v", there)
	for _, again := range [][2]string{{"sqlite", "postgres"}, {"postgres", "sqlite"}} {
		if code, _, notes := try(again[0], again[1]); code != exitFailed || !strings.Contains(notes, again[1]+": it holds data already") {
			t.Errorf("%v: %d %s", again, code, notes)
		}
	}
	if err := os.Rename(folder, folder+".old"); err != nil {
		t.Fatal(err)
	}
	code, back, notes := try("postgres", "sqlite")
	if code != exitOK || back.Digest != there.Digest || back.Counts != there.Counts {
		t.Fatalf("code %d, %+v, want %+v\n%s", code, back, there, notes)
	}
	t.Logf("postgres to sqlite: %+v", back)

	// Two lines more, and the relay serves from there what waited here.
	configure(t, dir, wide+"[storage]\nbackend = \"postgres\"\n"+server)
	srv = spawn(t, dir, "--listen", address)
	if err := srv.ready(); err != nil {
		t.Fatal(err)
	}
	code, out, notes := commucat(t, "client", "listen", "--profile", bob, "--count", "3", "--timeout", "20s")
	if code != exitOK || strings.Index(out, "text 0") > strings.Index(out, "text 1") || !strings.Contains(out, "text 2") {
		t.Errorf("listen: %d %s %s", code, out, notes)
	}
	restored(t, pg, srv, dir, alice, bob)
}

// restored: the database goes back to a dump, on the same server. What is sent afterwards is shown,
// though the device has seen more than the dump knows of.
func restored(t *testing.T, pg *pgserver.Server, srv *process, dir, alice, bob string) {
	t.Helper()
	dump := filepath.Join(pg.Dir, "dump")
	pg.Tool("pg_dump", "--format", "custom", "--schema", "commucat", "--file", dump, "commucat")
	exchange := func(texts ...string) {
		t.Helper()
		args := append([]string{"client", "send", "--profile", alice, "--to", "bob"}, texts...)
		if code, _, notes := commucat(t, args...); code != exitOK {
			t.Fatalf("send: %d %s", code, notes)
		}
		code, out, notes := commucat(t, "client", "listen", "--profile", bob, "--count", "1", "--timeout", "20s")
		if code != exitOK || !strings.Contains(out, texts[len(texts)-1]) {
			t.Errorf("%q: %d %s %s", texts, code, out, notes)
		}
	}
	for i := range 3 {
		exchange(fmt.Sprint("behind the dump ", i))
	}
	if code := srv.terminate(t); code != exitOK {
		t.Errorf("ended with %d: %s", code, srv.said())
	}
	pg.SQL("postgres", "DROP DATABASE commucat")
	pg.SQL("postgres", "CREATE DATABASE commucat OWNER commucat")
	pg.Tool("pg_restore", "--dbname", "commucat", dump)
	srv = spawn(t, dir, "--listen", srv.address())
	if err := srv.ready(); err != nil {
		t.Fatal(err)
	}
	exchange("after the restore")
	if code := srv.terminate(t); code != exitOK {
		t.Errorf("ended with %d: %s", code, srv.said())
	}
}

// troubled fails appends as it is told.
type troubled struct {
	storage.Queues
	calls atomic.Int64
	fail  func(call int64, b *storage.Batch) error
}

func (q *troubled) Append(ctx context.Context, now time.Time, b storage.Batch) ([]storage.Appended, error) {
	if err := q.fail(q.calls.Add(1), &b); err != nil {
		return nil, err
	}
	return q.Queues.Append(ctx, now, b)
}

// TestStorageCopyInterrupted: a copy that was cut off goes on, a passing failure is
// repeated, a row that the target loses is found, and no relay serves half a copy.
func TestStorageCopyInterrupted(t *testing.T) {
	source := openSQLite(t, t.TempDir())
	fill(t, source, 6000)
	want, err := transfer.Digest(t.Context(), source, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	copyTo := func(dir string, fail func(int64, *storage.Batch) error) (transfer.Report, error) {
		s := openSQLite(t, dir)
		defer func() {
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		to := s
		to.Queues = &troubled{Queues: s.Queues, fail: fail}
		return transfer.Copy(t.Context(), transfer.Options{
			From: transfer.Side{Name: "here", Store: source, Traits: storage.Traits{Batch: 100, Lanes: 4}},
			To:   transfer.Side{Name: "there", Store: to, Traits: storage.Traits{Batch: 100, Lanes: 4}},
			Now:  time.Now(), Reopen: func(context.Context) (storage.Store, error) { return s, nil },
		})
	}
	dir := dataFolder(t, wide)
	if code := relay(t, dir).terminate(t); code != exitOK {
		t.Fatalf("the relay ended with %d", code)
	}
	folder := filepath.Join(dir, "plugins", "storage-sqlite")
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	cut := errors.New("cut")
	if _, err := copyTo(folder, func(call int64, _ *storage.Batch) error {
		if call > 30 {
			return cut
		}
		return nil
	}); !errors.Is(err, cut) {
		t.Fatalf("cut off: %v", err)
	}
	if code, _, notes := commucat(t, "serve", "--data", dir, "--listen", "127.0.0.1:0"); code != exitFailed || !strings.Contains(notes, "unfinished copy of here") {
		t.Fatalf("a relay on half a copy: %d %s", code, notes)
	}
	if code, _, notes := commucat(t, "storage", "copy", "--data", dir, "--from", "sqlite", "--to", "memory"); code != exitFailed || !strings.Contains(notes, "unfinished copy of here") {
		t.Fatalf("a copy of half a copy: %d %s", code, notes)
	}
	passing := func(call int64, _ *storage.Batch) error {
		if call%20 == 3 {
			return fmt.Errorf("the server is away: %w", sdk.Unavailable)
		}
		return nil
	}
	got, err := copyTo(folder, passing)
	if err != nil || !got.Resumed || got.Digest != want.Digest || got.Counts != want.Counts {
		t.Fatalf("taken up: %+v %v, want %+v", got, err, want)
	}
	var lost atomic.Bool
	_, err = copyTo(t.TempDir(), func(_ int64, b *storage.Batch) error {
		if i := len(b.Rows) / 2; i > 0 && lost.CompareAndSwap(false, true) {
			b.Rows[i].Payload = []byte("another")
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "there has") {
		t.Errorf("a changed row: %v", err)
	}
	if from, err := transfer.Unfinished(t.Context(), openSQLite(t, folder).Directory, time.Now()); from != "" || err != nil {
		t.Errorf("after the end: %q %v", from, err)
	}
}

// TestStorageCopyPositions: what takes a storage's place goes on above every position that
// this one gave, in queues that are empty by now too, and however far they are ahead of the
// clock: after a fail-over of a server that is an hour.
func TestStorageCopyPositions(t *testing.T) {
	source, dir := openSQLite(t, t.TempDir()), t.TempDir()
	row := func(s storage.Store, n byte) uint64 {
		t.Helper()
		out, err := s.Queues.Append(t.Context(), time.Now(), storage.Batch{Rows: []storage.Append{{
			Queue: "emptied", ID: [16]byte{n}, Payload: []byte{n}, Expires: time.Now().Add(time.Hour),
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return out[0].Position
	}
	if err := source.Positions.Raise(t.Context(), uint64(time.Now().Add(time.Hour).UnixMicro())); err != nil {
		t.Fatal(err)
	}
	last := row(source, 1)
	if err := source.Queues.Done(t.Context(), []storage.Done{{Queue: "emptied", Cursor: last}}); err != nil {
		t.Fatal(err)
	}
	fill(t, source, 200)
	to := openSQLite(t, dir)
	if _, err := transfer.Copy(t.Context(), transfer.Options{
		From: transfer.Side{Name: "here", Store: source, Traits: storage.Traits{Batch: 100, Lanes: 4}},
		To:   transfer.Side{Name: "there", Store: to, Traits: storage.Traits{Batch: 100, Lanes: 4}},
		Now:  time.Now(), Reopen: func(context.Context) (storage.Store, error) { return to, nil },
	}); err != nil {
		t.Fatal(err)
	}
	if got := row(to, 2); got <= last {
		t.Errorf("position %d after %d", got, last)
	}
}
