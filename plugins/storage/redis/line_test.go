package redis_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/redis/redisserver"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest/proxy"
	"github.com/commucat/commucat/sdk/storage"
)

// TestLine: over a line that is slow by 500 ms everything works and nothing counts as
// hanging; when it is cut the subscription ends, and all goes on by itself.
func TestLine(t *testing.T) {
	t.Parallel()
	s := redisserver.Start(t)
	line := proxy.Start(t, s.Address())
	st := open(t, map[string]any{"address": []any{line.Address()}, "timeout": "20s"})
	l := listen(t, st, "n")
	l.hears(t, st, "n", "before")

	line.Slow(500 * time.Millisecond)
	if err := errors.Join(volatile(t.Context(), st), st.Ready(t.Context())); err != nil {
		t.Errorf("slow: %v", err)
	}
	var texts [][]byte
	for i := range 20 {
		texts = append(texts, fmt.Append(nil, "slow ", i))
	}
	if err := st.Bus.Publish(t.Context(), "n", texts); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(texts); {
		if got := <-l.got; strings.HasPrefix(got, "slow") { // "before" may have been sent more than once
			if got != string(texts[i]) {
				t.Errorf("%s in place of %s", got, texts[i])
			}
			i++
		}
	}
	line.Slow(0)
	select {
	case err := <-l.ended:
		t.Errorf("the subscription ended while the line was slow: %v", err)
	default:
	}

	line.Cut()
	if err := <-l.ended; !errors.Is(err, sdk.Unavailable) {
		t.Errorf("the subscription: %v", err)
	}
	until(t, "it goes on", func() bool { return volatile(t.Context(), st) == nil })
	l.hears(t, st, "n", "after")
}

// TestMemoryFull: a server that may take no more says so, and what only reads goes on.
func TestMemoryFull(t *testing.T) {
	t.Parallel()
	s := redisserver.Start(t)
	st := open(t, map[string]any{"address": []any{s.Address()}, "timeout": "20s"})
	now := time.Now()
	if err := volatile(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	s.Ask("CONFIG SET maxmemory 1")
	writes := map[string]func() error{
		"claim": func() error {
			_, err := st.Routes.Claim(t.Context(), now, []storage.Claim{{Device: "other", Node: "n", Session: "s", TTL: time.Hour}})
			return err
		},
		"put": func() error { return st.Cache.Put(t.Context(), now, "other", []byte("v"), time.Hour) },
		"announce": func() error {
			return st.Presence.Announce(t.Context(), now, []storage.Beat{{Device: "other", State: "online", TTL: time.Hour}})
		},
		"take": func() error {
			_, err := st.Limiter.Take(t.Context(), now, "other", storage.Rate{Burst: 1, Per: time.Minute}, 1)
			return err
		},
	}
	for name, f := range writes {
		if err := f(); !errors.Is(err, sdk.Unavailable) || !strings.Contains(err.Error(), "maxmemory") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if r, err := st.Routes.Lookup(t.Context(), now, []string{"d"}); err != nil || r[0].Node != "n" {
		t.Errorf("a route: %+v %v", r, err)
	}
	s.Ask("CONFIG SET maxmemory 0")
	for name, f := range writes {
		if err := f(); err != nil {
			t.Errorf("%s, with room again: %v", name, err)
		}
	}
}

// TestPasswordChangedAtServer: the calls say what is wrong until it is right again, and
// go on by themselves.
func TestPasswordChangedAtServer(t *testing.T) {
	t.Parallel()
	s := redisserver.Start(t, "--requirepass", "first")
	st := open(t, map[string]any{"address": []any{s.Address()}, "password": "first", "timeout": "20s"})
	if err := volatile(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	s.Ask("AUTH first\r\nCONFIG SET requirepass second\r\nCLIENT KILL TYPE normal")
	until(t, "it says so", func() bool {
		err := volatile(t.Context(), st)
		if err != nil && (strings.Contains(err.Error(), "first") || strings.Contains(err.Error(), "second")) {
			t.Errorf("the error tells a password: %v", err)
		}
		return errors.Is(err, sdk.Denied) && errors.Is(st.Ready(t.Context()), sdk.Denied)
	})
	s.Ask("AUTH second\r\nCONFIG SET requirepass first")
	until(t, "it goes on", func() bool { return volatile(t.Context(), st) == nil && st.Ready(t.Context()) == nil })
}
