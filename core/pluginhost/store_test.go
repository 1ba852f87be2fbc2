package pluginhost

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/sqlite"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/storage"
)

func storeSpec(name string) Spec {
	return Spec{Name: name, Plugin: "sqlite", Settings: Settings{Memory: memoryLimit}}
}

func ledgerSpec(name string) Spec {
	return Spec{Name: name, Plugin: "file", Settings: Settings{Memory: memoryLimit}}
}

// opened is a storage process with its store.
func (s *stand) storage(t testing.TB, name string) storage.Store {
	t.Helper()
	st, traits, err := s.Storage(t.Context(), storeSpec(name))
	must(t, err)
	if traits.Batch < 2 || traits.Lanes < 1 {
		t.Errorf("%+v", traits)
	}
	return st
}

func (s *stand) pid(kind, name string) int {
	for _, st := range s.States() {
		if st.Kind == kind && st.Name == name {
			return st.PID
		}
	}
	return 0
}

// TestLoadStorageConformance: the value that outlives its process keeps the contract.
func TestLoadStorageConformance(t *testing.T) {
	if raceDetector {
		t.Skip("starts a process for each case")
	}
	// Each run of the model opens a store; here that is a process.
	must(t, flag.Set("rapid.checks", "10"))
	defer func() { must(t, flag.Set("rapid.checks", "100")) }()
	s := newStand(t, nil)
	plugintest.Storage(t, func(ctx context.Context, dir string) (storage.Store, error) {
		sum := fnv.New64a()
		_, _ = sum.Write([]byte(dir)) // the folder is the suite's, the data the plugin's own
		st, _, err := s.Storage(ctx, storeSpec(fmt.Sprintf("s%x", sum.Sum64())))
		return st, err
	}, plugintest.StorageOptions{})
}

// TestStoreOutlivesItsProcess: killed again and again under writers, nothing that was
// acknowledged is lost and nobody sees more than a pause.
func TestStoreOutlivesItsProcess(t *testing.T) {
	const kills, writers = 6, 4
	s := newStand(t, func(o *Options) { o.CallWait = patience })
	st := s.storage(t, "sqlite")
	now := time.Now()
	var acknowledged [8]atomic.Uint64
	stop := make(chan struct{})
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			queue := fmt.Sprint("queue-", w)
			for n := uint64(1); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				row := storage.Append{Queue: queue, ID: [16]byte{byte(n), byte(n >> 8), byte(n >> 16)}, Payload: []byte(fmt.Sprint(n)), Expires: now.Add(time.Hour)}
				for { // as the core does: unchanged, in order
					res, err := st.Queues.Append(t.Context(), now, storage.Batch{Rows: []storage.Append{row}})
					if err == nil && res[0].Err == nil {
						break
					}
					if err != nil && sdk.KindOf(err) != sdk.Unavailable {
						t.Errorf("writer %d: %v", w, err)
						return
					}
				}
				acknowledged[w].Store(n)
			}
		})
	}
	committed := uint64(0)
	for i := range kills {
		target := acknowledged[0].Load() + 20
		eventually(t, "writers go on", func() bool { return acknowledged[0].Load() >= target })
		must(t, syscall.Kill(s.pid("storage", "sqlite"), syscall.SIGKILL))
		key := storage.Key{Kind: "test", ID: fmt.Sprint(i)}
		must(t, st.Directory.Commit(t.Context(), now, []storage.Write{{Key: key, Value: []byte{byte(i)}}}))
		committed++
		if got, err := st.Directory.Get(t.Context(), now, []storage.Key{key}); err != nil || len(got) != 1 || got[0].Version == 0 {
			t.Errorf("commit %d: %+v, %v", i, got, err)
		}
		// The pause doubles up to where five ends in two minutes park a plugin: an
		// upgrade begins anew.
		must(t, s.UpgradeBackend(t.Context(), sdk.Storage, "sqlite"))
	}
	close(stop)
	group.Wait()
	for w := range writers {
		rows, err := st.Queues.Read(t.Context(), now, fmt.Sprint("queue-", w), 0, storage.Page{Messages: 1 << 20, Bytes: 1 << 30})
		must(t, err)
		want := acknowledged[w].Load()
		if uint64(len(rows)) < want || uint64(len(rows)) > want+1 {
			t.Errorf("writer %d: %d rows, %d were acknowledged", w, len(rows), want)
		}
		for i, r := range rows {
			if string(r.Payload) != fmt.Sprint(i+1) {
				t.Fatalf("writer %d: row %d is %q", w, i+1, r.Payload)
			}
		}
	}
	must(t, st.Ready(t.Context()))
	must(t, st.Close(t.Context()))
	if len(s.States()) != 0 {
		t.Errorf("%+v", s.States())
	}
}

// TestStoreAway: calls wait for a while, and then say that it may be repeated.
func TestStoreAway(t *testing.T) {
	s := newStand(t, func(o *Options) { o.CallWait = 300 * time.Millisecond })
	st := s.storage(t, "sqlite")
	for range crashes {
		eventually(t, "a process", func() bool { return s.pid("storage", "sqlite") != 0 })
		must(t, syscall.Kill(s.pid("storage", "sqlite"), syscall.SIGKILL))
		eventually(t, "its end", func() bool { return s.pid("storage", "sqlite") == 0 })
	}
	eventually(t, "parked", func() bool { return s.States()[0].State == Parked })
	if _, err := st.Queues.Depths(t.Context(), []string{"q"}); sdk.KindOf(err) != sdk.Unavailable || !strings.Contains(err.Error(), "parked") {
		t.Errorf("%v", err)
	}
	if err := st.Ready(t.Context()); err == nil {
		t.Error("it calls itself ready")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := st.Queues.Depths(ctx, []string{"q"}); err == nil {
		t.Error("a cancelled call succeeded")
	}
	must(t, s.UpgradeBackend(t.Context(), sdk.Storage, "sqlite"))
	if _, err := st.Queues.Depths(t.Context(), []string{"q"}); err != nil {
		t.Errorf("after the upgrade: %v", err)
	}
}

// TestStoreThatCannotOpen is an error at once, and nothing goes on behind it.
func TestStoreThatCannotOpen(t *testing.T) {
	s := newStand(t, nil)
	bad := storeSpec("sqlite")
	bad.Raw = map[string]any{"pth": "x"}
	var many sdk.ConfigErrors
	if _, _, err := s.Storage(t.Context(), bad); !errors.As(err, &many) || many[0].Suggestion != "path" {
		t.Errorf("%v", err)
	}
	if _, _, err := s.Storage(t.Context(), Spec{Name: "x", Plugin: "absent"}); !errors.Is(err, sdk.Denied) {
		t.Errorf("%v", err)
	}
	if len(s.States()) != 0 {
		t.Errorf("%+v", s.States())
	}
	if err := s.UpgradeBackend(t.Context(), sdk.Storage, "sqlite"); sdk.KindOf(err) != sdk.NotFound {
		t.Errorf("%v", err)
	}
}

// TestStoreThatHangsWhileOpened: opening may take its time, a process that does not answer
// meanwhile does not.
func TestStoreThatHangsWhileOpened(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	s.pace.ping = 500 * time.Millisecond
	_, _, err := s.Storage(t.Context(), Spec{Name: "x", Plugin: "noop", Raw: map[string]any{"hang": true}, Settings: Settings{Memory: memoryLimit}})
	if !errors.Is(err, sdk.Unavailable) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v", err)
	}
	if len(s.States()) != 0 {
		t.Errorf("%+v", s.States())
	}
}

func TestLedgerOutlivesItsProcess(t *testing.T) {
	s := newStand(t, nil)
	l, forgets, err := s.Ledger(t.Context(), ledgerSpec("file"))
	if err != nil || forgets {
		t.Fatal(err, forgets)
	}
	head, err := l.Head(t.Context())
	must(t, err)
	for range 3 {
		more := plugintest.LedgerRecords(t, head, 5)
		must(t, l.Submit(t.Context(), more))
		head = more[len(more)-1]
		must(t, syscall.Kill(s.pid("ledger", "file"), syscall.SIGKILL))
		if got, err := l.Head(t.Context()); err != nil || got.Hash != head.Hash {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if all, err := l.Read(t.Context(), 0, 100); err != nil || len(all) != 15 {
		t.Errorf("%d records, %v", len(all), err)
	}
	must(t, l.Close(t.Context()))
}

// TestRepeatedCommit: a commit whose answer was lost is recognised by what it left.
func TestRepeatedCommit(t *testing.T) {
	st, err := storage.Open(t.Context(), sqlite.Plugin(), sdk.NewEnv(sdk.EnvOptions{State: t.TempDir()}), nil)
	must(t, err)
	defer st.Close(t.Context())
	now := time.Now()
	a, b, c := storage.Key{Kind: "t", ID: "a"}, storage.Key{Kind: "t", ID: "b"}, storage.Key{Kind: "t", ID: "c"}
	must(t, st.Directory.Commit(t.Context(), now, []storage.Write{{Key: c, Value: []byte("old")}}))
	old, err := st.Directory.Get(t.Context(), now, []storage.Key{c})
	must(t, err)
	w := []storage.Write{
		{Key: a, Value: []byte("1")}, {Key: b, CheckOnly: true}, {Key: c, Expect: old[0].Version},
	}
	check := func(name string, want bool) {
		t.Helper()
		if got, err := written(t.Context(), st.Directory, now, w); err != nil || got != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	check("before", false)
	must(t, st.Directory.Commit(t.Context(), now, w))
	check("after", true)
	if err := st.Directory.Commit(t.Context(), now, w); !errors.Is(err, sdk.Conflict) {
		t.Errorf("again: %v", err)
	}
	must(t, st.Directory.Commit(t.Context(), now, []storage.Write{{Key: a, Expect: storage.AnyVersion, Value: []byte("2")}}))
	check("another since", false)
	w = []storage.Write{{Key: b, CheckOnly: true}}
	check("nothing to see", false)
}
