package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// faultFS fails writes or syncs of files while a fault is set.
type faultFS struct {
	vfs.FS
	write, sync atomic.Pointer[error]
	synced      atomic.Int64
}

func (f *faultFS) Unwrap() vfs.FS { return f.FS }

func (f *faultFS) wrap(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &faultFile{file, f}, nil
}

func (f *faultFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if p := f.write.Load(); p != nil {
		return nil, *p
	}
	return f.wrap(f.FS.Create(name, c))
}

func (f *faultFS) ReuseForWrite(o, n string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if p := f.write.Load(); p != nil {
		return nil, *p
	}
	return f.wrap(f.FS.ReuseForWrite(o, n, c))
}

type faultFile struct {
	vfs.File
	f *faultFS
}

func (f *faultFile) Write(b []byte) (int, error) {
	if p := f.f.write.Load(); p != nil {
		n, _ := f.File.Write(b[:len(b)/2]) // torn
		return n, *p
	}
	return f.File.Write(b)
}

func (f *faultFile) fault() error {
	f.f.synced.Add(1)
	// Once: the next sync would say that all is well.
	if p := f.f.sync.Swap(nil); p != nil {
		return *p
	}
	return nil
}

func (f *faultFile) Sync() error {
	if err := f.fault(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultFile) SyncData() error {
	if err := f.fault(); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *faultFile) SyncTo(n int64) (bool, error) { return f.File.SyncTo(n) }

func testRow(queue string, n int) storage.Append {
	r := storage.Append{Queue: queue, Payload: fmt.Appendf(nil, "row %d", n), Expires: time.Unix(4e9, 0)}
	copy(r.ID[:], fmt.Sprintf("%016d", n))
	return r
}

func appendRow(t *testing.T, s storage.Store, n int) (storage.Appended, error) {
	t.Helper()
	out, err := s.Queues.Append(t.Context(), time.Unix(1e9, 0), storage.Batch{Rows: []storage.Append{testRow("q", n)}})
	if err != nil {
		return storage.Appended{}, err
	}
	return out[0], out[0].Err
}

func rowsIn(t *testing.T, s storage.Store) []string {
	t.Helper()
	page, err := s.Queues.Read(t.Context(), time.Unix(1e9, 0), "q", 0, storage.Page{})
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	var out []string
	for _, e := range page {
		out = append(out, string(e.Payload))
	}
	return out
}

// recovered waits until the store is ready again and says how long that took.
func recovered(t *testing.T, s storage.Store) time.Duration {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for start := time.Now(); ; <-tick.C {
		err := s.Ready(t.Context())
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("not ready after a minute: %v", err)
		}
	}
}

// TestFaults injects failures of the disk under the messages: nothing that failed is
// acknowledged, what was acknowledged stays, and the store recovers by itself.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*faultFS, *error)
		err  error
	}{
		{"sync fails once", func(f *faultFS, e *error) { f.sync.Store(e) }, syscall.EIO},
		{"disk full", func(f *faultFS, e *error) { f.write.Store(e) }, syscall.ENOSPC},
		{"writes fail", func(f *faultFS, e *error) { f.write.Store(e) }, syscall.EIO},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, dir := &faultFS{FS: vfs.Default}, t.TempDir()
			s := openTest(t, dir, Config{Queues: "pebble"}, options{fs: f})
			var want []string
			n := 0
			for round := range 3 {
				for range 5 {
					if _, err := appendRow(t, s, n); err != nil {
						t.Fatal(err)
					}
					want = append(want, fmt.Sprintf("row %d", n))
					n++
				}
				c.set(f, &c.err)
				_, err := appendRow(t, s, n)
				if sdk.KindOf(err) != sdk.Unavailable || !errors.Is(err, c.err) {
					t.Fatalf("round %d: %v, want unavailable by %v", round, err, c.err)
				}
				f.write.Store(nil)
				t.Logf("recovered after %v", recovered(t, s))
				// The core repeats what has no answer.
				if r, err := appendRow(t, s, n); err != nil || r.Position == 0 {
					t.Fatalf("repeat: %+v %v", r, err)
				}
				want = append(want, fmt.Sprintf("row %d", n))
				n++
				if got := rowsIn(t, s); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("rows %v, want %v", got, want)
				}
			}
			if err := s.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			s = openTest(t, dir, Config{Queues: "pebble"}, options{})
			if got := rowsIn(t, s); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("after a restart: rows %v, want %v", got, want)
			}
		})
	}
}

// TestFaultUnderLoad fails the disk while four lanes append and memtables rotate.
func TestFaultUnderLoad(t *testing.T) {
	f, dir := &faultFS{FS: vfs.Default}, t.TempDir()
	s := openTest(t, dir, Config{Queues: "pebble", Memtable: 1 << 20}, options{fs: f})
	now := time.Unix(1e9, 0)
	acked := make([]int, 4)
	stop := make(chan struct{})
	ended := make(chan int)
	for lane := range acked {
		go func() {
			defer func() { ended <- lane }()
			body := make([]byte, 20_000)
			for n := 0; ; {
				select {
				case <-stop:
					return
				default:
				}
				r := testRow(fmt.Sprintf("lane %d", lane), n)
				r.Payload = body
				if _, err := s.Queues.Append(t.Context(), now, storage.Batch{Rows: []storage.Append{r}}); err == nil {
					n++
					acked[lane] = n
				} else if sdk.KindOf(err) != sdk.Unavailable {
					t.Errorf("lane %d: %v", lane, err)
					return
				}
			}
		}()
	}
	fault, tick := error(syscall.ENOSPC), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for range 6 {
		<-tick.C
		f.write.Store(&fault)
		<-tick.C
		f.write.Store(nil)
		recovered(t, s)
	}
	close(stop)
	for range acked {
		<-ended
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, Config{Queues: "pebble"}, options{})
	for lane, n := range acked {
		d, err := s.Queues.Depths(t.Context(), []string{fmt.Sprintf("lane %d", lane)})
		if err != nil || d[0].Messages < uint64(n) {
			t.Errorf("lane %d: %d rows of %d acknowledged (%v)", lane, d[0].Messages, n, err)
		}
	}
	t.Logf("acknowledged %v", acked)
}

// TestReserve: below the reserve nothing is accepted, but what is there can be read
// and deleted, and it works again when there is space.
func TestReserve(t *testing.T) {
	for _, e := range engines {
		t.Run(e, func(t *testing.T) {
			var free atomic.Uint64
			free.Store(1 << 30)
			s := openTest(t, t.TempDir(), Config{Queues: e, Reserve: 1 << 20},
				options{free: func(string) (uint64, error) { return free.Load(), nil }})
			expire := func(s storage.Store) { // the answer about space is kept for a second
				sp := spaceOf(s)
				sp.mu.Lock()
				sp.until = time.Time{}
				sp.mu.Unlock()
			}
			r, err := appendRow(t, s, 1)
			if err != nil {
				t.Fatal(err)
			}
			free.Store(1000)
			expire(s)
			write := []storage.Write{{Key: storage.Key{Kind: "k", ID: "a"}, Value: []byte("v"), Expect: storage.AnyVersion}}
			if _, err := appendRow(t, s, 2); sdk.KindOf(err) != sdk.Unavailable || !strings.Contains(err.Error(), "disk is full") {
				t.Errorf("append: %v", err)
			}
			if err := s.Directory.Commit(t.Context(), time.Now(), write); sdk.KindOf(err) != sdk.Unavailable {
				t.Errorf("commit: %v", err)
			}
			if err := s.Ready(t.Context()); sdk.KindOf(err) != sdk.Unavailable {
				t.Errorf("ready: %v", err)
			}
			if got := rowsIn(t, s); len(got) != 1 {
				t.Errorf("rows %v", got)
			}
			if err := s.Queues.Done(t.Context(), []storage.Done{{Queue: "q", Cursor: r.Position}}); err != nil {
				t.Errorf("done: %v", err)
			}
			write[0].Value = nil
			if err := s.Directory.Commit(t.Context(), time.Now(), write); err != nil {
				t.Errorf("deletion: %v", err)
			}
			free.Store(1 << 30)
			expire(s)
			if err := s.Ready(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := appendRow(t, s, 2); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSmallDisk fills a real disk. It needs the right to mount one.
func TestSmallDisk(t *testing.T) {
	for _, e := range engines {
		t.Run(e, func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=48m"); err != nil {
				t.Skipf("a small disk cannot be mounted (%v); TestFaults injects the failure", err)
			}
			defer func() {
				if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
					t.Error(err)
				}
			}()
			// No reserve: the disk itself says that it is full.
			s := openTest(t, filepath.Join(dir, "store"), Config{Queues: e, Memtable: 1 << 20}, options{})
			ballast := filepath.Join(dir, "ballast")
			if err := os.WriteFile(ballast, make([]byte, 16<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			body, acked, now := make([]byte, 100_000), 0, time.Unix(1e9, 0)
			fill := func() error {
				for acked < 2000 {
					r := testRow("q", acked)
					r.Payload = body
					if _, err := s.Queues.Append(t.Context(), now, storage.Batch{Rows: []storage.Append{r}}); err != nil {
						return err
					}
					acked++
				}
				return nil
			}
			if err := fill(); sdk.KindOf(err) != sdk.Unavailable {
				t.Fatalf("after %d rows: %v", acked, err)
			}
			full := acked
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			t.Logf("full after %d rows, recovered after %v", full, recovered(t, s))
			r := testRow("q", full)
			r.Payload = body
			if _, err := s.Queues.Append(t.Context(), now, storage.Batch{Rows: []storage.Append{r}}); err != nil {
				t.Fatalf("after there is space: %v", err)
			}
			if d, err := s.Queues.Depths(t.Context(), []string{"q"}); err != nil || d[0].Messages != uint64(full+1) {
				t.Fatalf("%+v rows of %d acknowledged (%v)", d, full+1, err)
			}
			_ = s.Close(context.Background())
		})
	}
}

// TestRefusals: every folder that cannot be used is named in one line, and nothing
// in it is changed.
func TestRefusals(t *testing.T) {
	good := func(t *testing.T) string {
		dir := t.TempDir()
		s := openTest(t, dir, Config{}, options{})
		if _, err := appendRow(t, s, 1); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	edit := func(t *testing.T, dir, query string) string {
		db, err := sql.Open("sqlite", filepath.Join(dir, "relay.db"))
		if err == nil {
			_, err = db.Exec(query)
			_ = db.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, c := range []struct {
		name string
		dir  func(*testing.T) string
		kind sdk.ErrorKind
		text string
	}{
		{"no parent", func(t *testing.T) string { return filepath.Join(t.TempDir(), "a", "b") }, sdk.Unavailable, "the folder above it does not exist"},
		{"no folder", func(t *testing.T) string {
			f := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(f, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return f
		}, sdk.Unavailable, "not a directory"},
		{"in use", func(t *testing.T) string {
			dir := t.TempDir()
			openTest(t, dir, Config{}, options{})
			return dir
		}, sdk.Unavailable, "another process is using this folder"},
		{"no database", func(t *testing.T) string {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "relay.db"), []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
			return dir
		}, sdk.Corrupt, "damaged or no database"},
		{"newer", func(t *testing.T) string {
			return edit(t, good(t), "INSERT INTO migration VALUES (99, 'from the future', '')")
		}, sdk.Invalid, "newer version (schema 99"},
		{"foreign", func(t *testing.T) string {
			return edit(t, t.TempDir(), "CREATE TABLE theirs (a)")
		}, sdk.Invalid, "another program"},
		{"older than its tables", func(t *testing.T) string {
			return edit(t, good(t), "DELETE FROM migration")
		}, sdk.Corrupt, "do not fit the version"},
		{"damaged record", func(t *testing.T) string {
			return edit(t, good(t), "INSERT INTO record VALUES ('user', 'a', 1, NULL, x'00', 7)")
		}, sdk.Corrupt, "checksum"},
		{"damaged queues", func(t *testing.T) string {
			dir := good(t)
			m, err := filepath.Glob(filepath.Join(dir, "queues", "MANIFEST-*"))
			if err != nil || len(m) == 0 {
				t.Fatal(m, err)
			}
			for _, m := range m {
				if err := os.WriteFile(m, []byte("nonsense, and quite a lot of it"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			return dir
		}, sdk.Corrupt, "queues"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := c.dir(t)
			_, err := storage.Open(t.Context(), define(options{verify: time.Hour}), nil, map[string]any{"path": dir})
			if sdk.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v (%v), want %v with %q", err, sdk.KindOf(err), c.kind, c.text)
			}
			t.Log(err)
		})
	}
}

// TestBitFlips damages the files of a closed store, one bit at a time. What is then
// answered is either right or an error.
func TestBitFlips(t *testing.T) {
	for _, e := range engines {
		t.Run(e, func(t *testing.T) {
			dir := t.TempDir()
			thousand(t, dir, e)
			if e == "pebble" { // a second opening moves the log into a table
				_ = openTest(t, dir, Config{Queues: e}, options{}).Close(context.Background())
			}
			flipAll(t, dir, e)
		})
	}
}

// thousand fills a store with what countRows expects.
func thousand(t *testing.T, dir, engine string) {
	t.Helper()
	s := openTest(t, dir, Config{Queues: engine}, options{})
	for i := range 20 {
		var rows []storage.Append
		for j := range 50 {
			r := testRow("q", 50*i+j)
			r.Payload = fmt.Appendf(nil, "row %d %0300d", 50*i+j, 0)
			rows = append(rows, r)
		}
		if _, err := s.Queues.Append(t.Context(), time.Unix(1e9, 0), storage.Batch{Rows: rows}); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Close(context.Background())
}

// TestBitFlipsAboveTheRows damages the inner pages of SQLite's trees, where a bit
// does not spoil a row but the way to it.
func TestBitFlipsAboveTheRows(t *testing.T) {
	dir := t.TempDir()
	thousand(t, dir, "sqlite")
	was, err := os.ReadFile(filepath.Join(dir, "relay.db"))
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	flips := 0
	for p := page; p < len(was); p += page {
		if was[p] != 2 { // the inner page of an index, as tables without rowid are kept
			continue
		}
		// Behind the header is where the cells are: child page, size, header, key.
		for c := range int(was[p+4]) {
			cell := p + int(was[p+12+2*c])<<8 + int(was[p+13+2*c])
			for i := c % 5; i < 24; i += 5 {
				bad := append([]byte(nil), was...)
				bad[cell+i] ^= 1 << (flips % 8)
				flips++
				d := t.TempDir()
				if err := os.WriteFile(filepath.Join(d, "relay.db"), bad, 0o600); err != nil {
					t.Fatal(err)
				}
				if n, err := countRows(t, d, "sqlite"); err == nil && n != 1000 {
					t.Errorf("byte %d of cell %d of page %d: %d rows of 1000 and no error", i, c, p/page+1, n)
				}
			}
		}
	}
	if flips < 200 {
		t.Errorf("only %d flips: where are the inner pages?", flips)
	}
}

func flipAll(t *testing.T, dir, engine string) {
	var files []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Base(p) != "lock" {
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	detected, right, served := 0, 0, 0
	for _, f := range files {
		was, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if len(was) == 0 || strings.Contains(f, "OPTIONS") {
			continue
		}
		for i := range 12 {
			bad := append([]byte(nil), was...)
			at := (i*len(bad))/12 + (i*7919)%max(1, len(bad)/12)
			bad[at] ^= 1 << (i % 8)
			copyTo := t.TempDir()
			if err := os.CopyFS(filepath.Join(copyTo, "d"), os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			rel, _ := filepath.Rel(dir, f)
			if err := os.WriteFile(filepath.Join(copyTo, "d", rel), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			switch n, err := countRows(t, filepath.Join(copyTo, "d"), engine); {
			case err != nil:
				detected++
			case n == 1000:
				right++
			default:
				served++
				t.Errorf("%s: bit %d of byte %d flipped: %d rows of 1000 and no error", rel, i%8, at, n)
			}
		}
	}
	t.Logf("%d detected, %d without effect, %d served wrong", detected, right, served)
}

// countRows reads the whole queue and checks the bodies.
func countRows(t *testing.T, dir, engine string) (int, error) {
	s, err := storage.Open(t.Context(), define(options{verify: time.Hour}), nil, map[string]any{"path": dir, "queues": engine})
	if err != nil {
		return 0, err
	}
	defer func() { _ = s.Close(context.Background()) }()
	n := 0
	for after := uint64(0); ; {
		page, err := s.Queues.Read(t.Context(), time.Unix(1e9, 0), "q", after, storage.Page{Messages: 100})
		if err != nil || len(page) == 0 {
			return n, err
		}
		for _, e := range page {
			if string(e.Payload) == fmt.Sprintf("row %d %0300d", n, 0) {
				n++
			}
			after = e.Position
		}
	}
}
