package sqlite

import (
	"context"
	"os"
	"testing"

	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/storage"
	"go.uber.org/goleak"
)

const engineVariable = "COMMUCAT_TEST_QUEUES"

func opener(engine string) plugintest.StorageOpen {
	return func(ctx context.Context, dir string) (storage.Store, error) {
		return storage.Open(ctx, Plugin(), nil, map[string]any{"path": dir, "queues": engine})
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
