package redis_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	plugin "github.com/commucat/commucat/plugins/storage/redis"
	"github.com/commucat/commucat/plugins/storage/redis/redisserver"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/storage"
)

func open(t testing.TB, raw map[string]any) storage.Store {
	t.Helper()
	s, err := storage.Open(t.Context(), plugin.Plugin(), nil, raw)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

func TestConformance(t *testing.T) {
	conforms(t, map[string]any{"address": []any{redisserver.Start(t).Address()}})
}

// conforms runs the suite, each store under a prefix of its own.
func conforms(t *testing.T, raw map[string]any) {
	plugintest.Storage(t, func(ctx context.Context, dir string) (storage.Store, error) {
		with := maps.Clone(raw)
		with["prefix"] = filepath.Base(filepath.Dir(dir)) + filepath.Base(dir) + ":"
		return storage.Open(ctx, plugin.Plugin(), nil, with)
	}, plugintest.StorageOptions{Forgets: true})
}

// The reference's key and form.
func TestPresenceKey(t *testing.T) {
	s := redisserver.Start(t)
	now := time.Now()
	if err := open(t, map[string]any{"address": []any{s.Address()}}).Presence.Announce(t.Context(), now, []storage.Beat{
		{Device: "dev-a", State: "online", User: []byte(`{"id":"u1"}`), TTL: time.Minute},
	}); err != nil {
		t.Fatal(err)
	}
	db := redis.NewClient(&redis.Options{Addr: s.Address()})
	defer db.Close()
	text, err := db.Get(t.Context(), "presence:dev-a").Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Entity, State string
		Expires       time.Time `json:"expires_at"`
		User          struct{ ID string }
	}
	if err := json.Unmarshal(text, &got); err != nil || got.Entity != "dev-a" || got.State != "online" || got.User.ID != "u1" || !got.Expires.Equal(now.Add(time.Minute)) {
		t.Errorf("%s: %v", text, err)
	}
	if ttl := db.TTL(t.Context(), "presence:dev-a").Val(); ttl <= 0 || ttl > time.Minute {
		t.Errorf("life %v", ttl)
	}
}

// A server that was killed comes back empty: scripts are loaded again, a renewal puts
// its route back, and nothing has to be restarted.
func TestServerComesBackEmpty(t *testing.T) {
	s := redisserver.Start(t)
	st := open(t, map[string]any{"address": []any{s.Address()}, "timeout": "500ms"})
	now := time.Now()
	claim := storage.Claim{Device: "d", Node: "n", Session: "s", TTL: time.Hour}
	fence, err := st.Routes.Claim(t.Context(), now, []storage.Claim{claim})
	if err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if _, err := st.Routes.Lookup(t.Context(), now, []string{"d"}); !errors.Is(err, sdk.Unavailable) {
		t.Errorf("while it is away: %v", err)
	}
	if err := st.Ready(t.Context()); !errors.Is(err, sdk.Unavailable) {
		t.Errorf("ready: %v", err)
	}
	s.Run()
	held, err := st.Routes.Renew(t.Context(), now, []storage.Renewal{{Device: "d", Node: "n", Session: "s", Fence: fence[0], TTL: time.Hour}})
	if err != nil || !held[0] {
		t.Fatalf("renewal: %v %v", held, err)
	}
	r, err := st.Routes.Lookup(t.Context(), now, []string{"d"})
	if err != nil || r[0].Fence != fence[0] || r[0].Node != "n" {
		t.Errorf("%+v %v", r, err)
	}
	if wait, err := st.Limiter.Take(t.Context(), now, "k", storage.Rate{Burst: 1, Per: time.Minute}, 1); err != nil || wait != 0 {
		t.Errorf("limiter: %v %v", wait, err)
	}
}

// A relay that starts while the server is away uses it once it is there.
func TestStartsWithoutServer(t *testing.T) {
	s := redisserver.Start(t)
	s.Kill()
	st := open(t, map[string]any{"address": []any{s.Address()}, "timeout": "500ms"})
	if err := st.Ready(t.Context()); !errors.Is(err, sdk.Unavailable) {
		t.Errorf("ready: %v", err)
	}
	s.Run()
	if err := st.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPassword(t *testing.T) {
	s := redisserver.Start(t, "--requirepass", "open sesame")
	_, err := storage.Open(t.Context(), plugin.Plugin(), nil, map[string]any{"address": []any{s.Address()}, "password": "wrong"})
	if !errors.Is(err, sdk.Denied) {
		t.Errorf("wrong password: %v", err)
	}
	st := open(t, map[string]any{"address": []any{s.Address()}, "password": "open sesame"})
	if err := st.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	for name, raw := range map[string]map[string]any{
		"address":  {"address": []any{"localhost"}},
		"database": {"address": []any{"a:1", "b:2"}, "database": 3},
		"key":      {"adress": []any{"a:1"}},
	} {
		if _, err := storage.Open(t.Context(), plugin.Plugin(), nil, raw); sdk.KindOf(err) != sdk.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkPresence(b *testing.B) {
	s := redisserver.Start(b)
	st := open(b, map[string]any{"address": []any{s.Address()}})
	now := time.Now()
	const batch = 512
	beats := make([]storage.Beat, batch)
	for i := range beats {
		beats[i] = storage.Beat{Device: fmt.Sprintf("device-%d", i), State: "online", User: []byte(`{"id":"user"}`), TTL: time.Minute}
	}
	for b.Loop() {
		if err := st.Presence.Announce(context.Background(), now, beats); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "beats/s")
}
