package memory

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/storage"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	plugintest.Storage(t, func(ctx context.Context, _ string) (storage.Store, error) {
		return storage.Open(ctx, Plugin(), nil, map[string]any{"durable": true})
	}, plugintest.StorageOptions{Forgets: true})
}

// TestConformanceInUse: a storage that somebody uses is not written to by the suite, which
// says what to do.
func TestConformanceInUse(t *testing.T) {
	s, err := storage.Open(t.Context(), Plugin(), nil, map[string]any{"durable": true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	key := storage.Key{Kind: "account", ID: "alice"}
	if err := s.Directory.Commit(t.Context(), time.Unix(1e9, 0), []storage.Write{{Key: key, Expect: storage.AnyVersion, Value: []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	shared := s
	shared.Close = nil
	var results []plugintest.Result
	plugintest.Run(t.Context(), "store", func(r plugintest.Result) { results = append(results, r) }, func(t plugintest.T) {
		plugintest.StorageCases(t, func(context.Context, string) (storage.Store, error) { return shared, nil }, plugintest.StorageOptions{Forgets: true})
	})
	if len(results) != 1 || !results[0].Failed || !strings.Contains(results[0].Log, `records of the kind "account"`) || !strings.Contains(results[0].Log, `"check_{id}"`) {
		t.Errorf("%d cases: %+v", len(results), results)
	}
	if names, err := s.Inventory.Queues(t.Context(), "", 1); err != nil || len(names) > 0 {
		t.Error("it was written to:", names, err)
	}
}

func TestBounds(t *testing.T) {
	s, now := New(Config{Routes: 100, Beats: 100, Values: 100, Buckets: 100, Cached: 64 << 10}), time.Unix(1e9, 0)
	var fence uint64
	for i := range 1000 {
		name := fmt.Sprint(i)
		f, err := s.Routes.Claim(t.Context(), now, []storage.Claim{{Device: name, Session: "s", TTL: time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		fence = max(fence, f[0])
		if err := s.Presence.Announce(t.Context(), now, []storage.Beat{{Device: name, State: "online", TTL: time.Hour}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Cache.Put(t.Context(), now, name, make([]byte, 1000), time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Limiter.Take(t.Context(), now, name, storage.Rate{Burst: 5, Per: time.Hour}, 5); err != nil {
			t.Fatal(err)
		}
	}
	c, l := s.Cache.(*cache), s.Limiter.(*limiter)
	if r := s.Routes.(*routes); len(r.table.rows) > 100 || r.floor < uint64(now.UnixMilli()) {
		t.Errorf("%d routes, floor %d", len(r.table.rows), r.floor)
	}
	if len(c.table.rows) > 65 || c.bytes > 64<<10 || len(l.table.rows) > 100 || len(s.Presence.(*presence).table.rows) > 100 {
		t.Errorf("%d values of %d bytes, %d buckets", len(c.table.rows), c.bytes, len(l.table.rows))
	}
	// What was forgotten never comes back with an older fence.
	f, err := s.Routes.Claim(t.Context(), now.Add(-time.Hour), []storage.Claim{{Device: "0", Session: "t", TTL: time.Hour}})
	if err != nil || f[0] <= uint64(now.UnixMilli()) {
		t.Errorf("fence %d", f[0])
	}
	if err := s.Cache.Put(t.Context(), now, "k", make([]byte, 65<<10), time.Hour); err == nil {
		t.Error("a value larger than the cache was taken")
	}
}

func BenchmarkLimiter(b *testing.B) {
	s, now := New(Config{}), time.Unix(1e9, 0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_, _ = s.Limiter.Take(b.Context(), now, "198.51.100.0/24", storage.Rate{Burst: 1 << 30, Per: time.Hour}, 1)
	}
}

func ExampleNew() {
	s := New(Config{})
	ctx, now := context.Background(), time.Unix(1_700_000_000, 0)
	fences, _ := s.Routes.Claim(ctx, now, []storage.Claim{{Device: "d", Node: "n", Session: "s", TTL: time.Minute}})
	routes, _ := s.Routes.Lookup(ctx, now, []string{"d"})
	fmt.Println(fences[0], routes[0].Node)
	// Output: 1700000000000 n
}
