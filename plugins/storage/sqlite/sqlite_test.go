package sqlite

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/storage"
	"go.uber.org/goleak"
)

const engineVariable = "COMMUCAT_TEST_QUEUES"

func opener(engine string) plugintest.StorageOpen {
	return func(ctx context.Context, dir string) (storage.Store, error) {
		env := sdk.NewEnv(sdk.EnvOptions{Log: slog.New(slog.DiscardHandler), State: dir})
		return storage.Open(ctx, Plugin(), env, map[string]any{"queues": engine})
	}
}

func TestMain(m *testing.M) {
	plugintest.StorageVictim(opener(os.Getenv(engineVariable)))
	// Pebble leaves these behind when it refuses to open damaged files.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2/internal/genericcache.(*shard[...]).releaseLoop"))
}

// TestConformance runs the suite. The directory is the same with both engines.
func TestConformance(t *testing.T) {
	for _, e := range engines {
		t.Run(e, func(t *testing.T) {
			plugintest.Storage(t, func(ctx context.Context, dir string) (storage.Store, error) {
				s, err := opener(e)(ctx, dir)
				if e == "sqlite" {
					s.Directory = nil
				}
				return s, err
			}, plugintest.StorageOptions{
				Victim: true, Variables: []string{engineVariable + "=" + e},
			})
		})
	}
}

// TestPositionsOutliveTheStore: whatever takes a store's place goes on above its
// positions. A device asks for what lies behind the last one it has, and would never
// see what came below.
func TestPositionsOutliveTheStore(t *testing.T) {
	for _, tc := range []struct {
		name, before, after string
		lose                []string // what is gone from the folder meanwhile
	}{
		{"to the other engine", "pebble", "sqlite", nil},
		{"and back", "sqlite", "pebble", nil},
		{"messages lost", "pebble", "pebble", []string{"queues", "queues.manifests"}},
		{"everything lost", "sqlite", "sqlite", []string{"relay.db", "relay.db-wal", "relay.db-shm"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			last := uint64(0)
			for _, e := range []string{tc.before, tc.after} {
				s, err := opener(e)(t.Context(), dir)
				if err != nil {
					t.Fatal(err)
				}
				for n := range 3 {
					r, err := appendRow(t, s, n)
					if err != nil || r.Position <= last {
						t.Errorf("%s: position %d after %d, %v", e, r.Position, last, err)
					}
					last = r.Position
				}
				if err := s.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				for _, name := range tc.lose {
					if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// TestConformanceSmall keeps next to nothing in memory, so that queues are read in
// again all the time.
func TestConformanceSmall(t *testing.T) {
	plugintest.Storage(t, func(ctx context.Context, dir string) (storage.Store, error) {
		s, err := opener("pebble")(ctx, dir)
		if err == nil {
			s.Queues.(*queues).budget = 1
		}
		s.Directory = nil
		return s, err
	}, plugintest.StorageOptions{})
}

// TestRelativeFolder: the first part of a relative path is no host of a URI.
func TestRelativeFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, engine := range engines {
		dir := filepath.Join("here", "a #?%41 name", engine)
		if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		openTest(t, dir, Config{Queues: engine}, options{})
		if _, err := os.Stat(filepath.Join(dir, "relay.db")); err != nil {
			t.Error(err)
		}
	}
}
