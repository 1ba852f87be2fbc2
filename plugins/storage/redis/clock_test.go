package redis

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/storage/redis/redisserver"
	"github.com/commucat/commucat/sdk/storage"
)

// TestClocksDiffer: of two nodes each sees what the other stored for as long as that was
// meant, though their clocks are an hour apart, whichever of them is the one that is off.
func TestClocksDiffer(t *testing.T) {
	s := redisserver.Start(t)
	for _, tt := range []struct {
		name          string
		writer, other time.Duration
	}{{"the writer is behind", -time.Hour, 0}, {"the writer is ahead", time.Hour, 0}, {"both are off", -time.Hour, time.Hour}} {
		t.Run(tt.name, func(t *testing.T) {
			node := func(off time.Duration) (*store, func() time.Time) {
				clock := func() time.Time { return time.Now().Add(off) }
				var said strings.Builder
				n := newStore(&Config{Address: []string{s.Address()}, Timeout: 10 * time.Second}, clock, slog.New(slog.NewTextHandler(&said, nil)))
				t.Cleanup(func() { _ = n.close() })
				if err := n.compare(t.Context()); err != nil {
					t.Fatal(err)
				}
				if want := off != 0; strings.Contains(said.String(), "server_ahead="+fmt.Sprint(-off)) != want {
					t.Errorf("off by %v it said %q", off, said.String())
				}
				return n, clock
			}
			a, nowA := node(tt.writer)
			b, nowB := node(tt.other)
			ctx := context.Background()
			device := "device of " + tt.name
			if _, err := (*routes)(a).Claim(ctx, nowA(), []storage.Claim{{Device: device, Node: "a", Session: "s", TTL: time.Minute}}); err != nil {
				t.Fatal(err)
			}
			for after, want := range map[time.Duration]string{30 * time.Second: "a", 90 * time.Second: ""} {
				if r, err := (*routes)(b).Lookup(ctx, nowB().Add(after), []string{device}); err != nil || r[0].Node != want {
					t.Errorf("route after %v: %+v %v", after, r, err)
				}
			}
			if err := (*presence)(a).Announce(ctx, nowA(), []storage.Beat{{Device: device, State: "online", TTL: time.Minute}}); err != nil {
				t.Fatal(err)
			}
			if p, err := (*presence)(b).Beats(ctx, nowB(), []string{device}); err != nil || p[0].State != "online" || p[0].TTL > 2*time.Minute {
				t.Errorf("presence: %+v %v", p, err)
			}
			if err := (*cache)(a).Put(ctx, nowA(), device, []byte("token"), time.Minute); err != nil {
				t.Fatal(err)
			}
			for after, want := range map[time.Duration]string{30 * time.Second: "token", 90 * time.Second: ""} {
				if v, err := (*cache)(b).Get(ctx, nowB().Add(after), device); err != nil || string(v) != want {
					t.Errorf("value after %v: %q %v", after, v, err)
				}
			}
			rate := storage.Rate{Burst: 2, Per: time.Hour}
			for i, want := range []bool{true, true, false, false} { // in turn, a second apart
				n, now := a, nowA
				if i%2 == 1 {
					n, now = b, nowB
				}
				if wait, err := (*limiter)(n).Take(ctx, now().Add(time.Duration(i)*time.Second), device, rate, 1); err != nil || (wait == 0) != want {
					t.Errorf("token %d: %v %v", i, wait, err)
				}
			}
		})
	}
}

// TestClockOfServerThatCameLate: a node that started before the server learns the server's
// time soon after it is there, and looks at it more rarely from then on.
func TestClockOfServerThatCameLate(t *testing.T) {
	s := redisserver.Start(t)
	s.Kill()
	behind := func() time.Time { return time.Now().Add(-time.Hour) }
	n := newStore(&Config{Address: []string{s.Address()}, Timeout: time.Second}, behind, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { _ = n.close() })
	if err := n.compare(t.Context()); err == nil {
		t.Fatal("a server that is away told its time")
	}
	if w := n.clock.wait(); w != clockFirst {
		t.Errorf("it waits %v for the first time", w)
	}
	n.watched.start(n.keepTime)
	s.Run()
	for end := time.Now().Add(time.Minute); !n.clock.known.Load(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the server's time is not known")
		}
	}
	if off := time.Since(n.clock.server(behind())).Abs(); off > time.Minute {
		t.Errorf("off by %v", off)
	}
	if w := n.clock.wait(); w != clockEvery {
		t.Errorf("it waits %v for the next time", w)
	}
}
