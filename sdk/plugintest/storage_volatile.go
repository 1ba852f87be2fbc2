package plugintest

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

var routeCases = map[string]func(T, *storageKit){
	"newest wins": routesNewest,
	"fences":      routesFences,
	"ends":        routesEnd,
	"renewal":     routesRenew,
	"race":        routesRace,
}

func claim(t testing.TB, s storage.Store, now time.Time, c ...storage.Claim) []uint64 {
	t.Helper()
	f, err := s.Routes.Claim(t.Context(), now, c)
	if err != nil || len(f) != len(c) {
		t.Fatalf("claim: %v %v", f, err)
	}
	return f
}

func lookup(t testing.TB, s storage.Store, now time.Time, device string) storage.Route {
	t.Helper()
	r, err := s.Routes.Lookup(t.Context(), now, []string{device})
	if err != nil || len(r) != 1 {
		t.Fatalf("lookup: %v %v", r, err)
	}
	return r[0]
}

func renew(t testing.TB, s storage.Store, now time.Time, r storage.Renewal) bool {
	t.Helper()
	ok, err := s.Routes.Renew(t.Context(), now, []storage.Renewal{r})
	if err != nil || len(ok) != 1 {
		t.Fatalf("renew: %v %v", ok, err)
	}
	return ok[0]
}

func claimOf(session string) storage.Claim {
	return storage.Claim{Device: "device", Node: "node of " + session, Session: session, TTL: time.Minute}
}

func routesNewest(t T, k *storageKit) {
	s, _ := k.fresh(t)
	if r := lookup(t, s, epoch, "device"); r.Fence != 0 {
		t.Fatalf("nobody claimed: %+v", r)
	}
	f := claim(t, s, epoch, claimOf("one"), claimOf("two"), storage.Claim{Device: "other", Node: "n", Session: "x", TTL: time.Minute})
	if f[1] <= f[0] {
		t.Fatalf("fences %v", f)
	}
	want := storage.Route{Device: "device", Node: "node of two", Session: "two", Fence: f[1]}
	if r := lookup(t, s, epoch, "device"); r != want {
		t.Fatalf("%+v, want %+v", r, want)
	}
	if r := lookup(t, s, epoch, "other"); r.Session != "x" || r.Fence != f[2] {
		t.Fatalf("other: %+v", r)
	}
}

func routesFences(t T, k *storageKit) {
	s, _ := k.fresh(t)
	last := claim(t, s, epoch, claimOf("a"))[0]
	if last < uint64(epoch.UnixMilli()) {
		t.Fatalf("fence %d is below the time in milliseconds", last)
	}
	// At the same time, later, after the clock was set back, after release and end.
	for i, now := range []time.Time{epoch, epoch.Add(time.Second), epoch.Add(-time.Hour), epoch.Add(-time.Hour), epoch.Add(time.Hour)} {
		f := claim(t, s, now, claimOf(fmt.Sprint(i)))[0]
		if f <= last {
			t.Fatalf("fence %d after %d", f, last)
		}
		if i == 2 && !renew(t, s, now, storage.Renewal{Device: "device", Session: "2", Fence: f}) {
			t.Fatal("release by the holder was refused")
		}
		last = f
	}
}

func routesEnd(t T, k *storageKit) {
	s, _ := k.fresh(t)
	f := claim(t, s, epoch, claimOf("one"))[0]
	if lookup(t, s, epoch.Add(59*time.Second), "device").Fence != f || lookup(t, s, epoch.Add(61*time.Second), "device").Fence != 0 {
		t.Fatal("the route's time is not honoured")
	}
	if !renew(t, s, epoch.Add(50*time.Second), storage.Renewal{Device: "device", Node: "n", Session: "one", Fence: f, TTL: time.Minute}) {
		t.Fatal("renewal by the holder was refused")
	}
	if lookup(t, s, epoch.Add(100*time.Second), "device").Fence != f {
		t.Fatal("the renewal did not prolong the route")
	}
	if !renew(t, s, epoch.Add(100*time.Second), storage.Renewal{Device: "device", Session: "one", Fence: f}) ||
		lookup(t, s, epoch.Add(100*time.Second), "device").Fence != 0 {
		t.Fatal("the route was not released")
	}
}

func routesRenew(t T, k *storageKit) {
	s, _ := k.fresh(t)
	f := claim(t, s, epoch, claimOf("old"), claimOf("new"))
	old := storage.Renewal{Device: "device", Node: "n", Session: "old", Fence: f[0], TTL: time.Minute}
	if renew(t, s, epoch, old) {
		t.Fatal("a replaced session renewed its route")
	}
	if old.TTL = 0; renew(t, s, epoch, old) || lookup(t, s, epoch, "device").Session != "new" {
		t.Fatal("a replaced session released its successor's route")
	}
	if renew(t, s, epoch, storage.Renewal{Device: "device", Session: "guess", Fence: f[1], TTL: time.Minute}) {
		t.Fatal("another session used the holder's fence")
	}
	// A store that has forgotten takes the number back.
	lost := storage.Renewal{Device: "lost", Node: "n", Session: "s", Fence: f[1] + 1000, TTL: time.Minute}
	if !renew(t, s, epoch, lost) || lookup(t, s, epoch, "lost") != (storage.Route{Device: "lost", Node: "n", Session: "s", Fence: lost.Fence}) {
		t.Fatalf("taken back: %+v", lookup(t, s, epoch, "lost"))
	}
	if g := claim(t, s, epoch, storage.Claim{Device: "lost", Node: "m", Session: "t", TTL: time.Minute})[0]; g <= lost.Fence {
		t.Fatalf("fence %d after %d", g, lost.Fence)
	}
}

func routesRace(t T, k *storageKit) {
	s, _ := k.fresh(t)
	var mu sync.Mutex
	fences := map[uint64]string{}
	highest := uint64(0)
	race(32, func(i int) bool {
		session := fmt.Sprint(i)
		f := claim(t, s, epoch, claimOf(session))[0]
		mu.Lock()
		defer mu.Unlock()
		if fences[f] != "" {
			t.Errorf("fence %d was given twice", f)
		}
		fences[f] = session
		highest = max(highest, f)
		return true
	})
	if r := lookup(t, s, epoch, "device"); r.Fence != highest || r.Session != fences[highest] {
		t.Fatalf("%+v holds the route, highest fence %d of %s", r, highest, fences[highest])
	}
}

var presenceCases = map[string]func(T, *storageKit){
	"beats": func(t T, k *storageKit) {
		s, _ := k.fresh(t)
		announce := func(now time.Time, b ...storage.Beat) error { return s.Presence.Announce(t.Context(), now, b) }
		if err := announce(epoch,
			storage.Beat{Device: "a", State: "online", User: []byte(`{"handle":"猫"}`), TTL: time.Minute},
			storage.Beat{Device: "b", State: "offline", TTL: time.Hour},
			storage.Beat{Device: "b", State: "away ☕", TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			after time.Duration
			a, b  string
		}{{0, "online", "away ☕"}, {59 * time.Second, "online", "away ☕"}, {61 * time.Second, "", "away ☕"}, {2 * time.Hour, "", ""}} {
			got, err := s.Presence.Beats(t.Context(), epoch.Add(c.after), []string{"a", "nobody", "b"})
			if err != nil || len(got) != 3 || got[0].State != c.a || got[1].State != "" || got[2].State != c.b || got[0].Device != "a" || got[1].Device != "nobody" {
				t.Fatalf("after %v: %+v %v", c.after, got, err)
			}
			if c.a != "" && string(got[0].User) != `{"handle":"猫"}` {
				t.Fatalf("user: %q", got[0].User)
			}
		}
		for name, b := range map[string]storage.Beat{
			"state": {Device: "c", State: string(make([]byte, storage.MaxState+1)), TTL: time.Minute},
			"user":  {Device: "c", State: "x", User: make([]byte, storage.MaxProfile+1), TTL: time.Minute},
		} {
			if err := announce(epoch, b); sdk.KindOf(err) != sdk.Invalid {
				t.Errorf("too long a %s: %v", name, err)
			}
		}
	},
}

var cacheCases = map[string]func(T, *storageKit){
	"values": cacheValues,
	"take": func(t T, k *storageKit) {
		s, _ := k.fresh(t)
		for i := range 20 {
			id := fmt.Sprint(i)
			if err := s.Cache.Put(t.Context(), epoch, id, []byte("v"), time.Minute); err != nil {
				t.Fatal(err)
			}
			if won := race(8, func(int) bool {
				v, err := s.Cache.Take(t.Context(), epoch, id)
				if err != nil {
					t.Error(err)
				}
				return v != nil
			}); won != 1 {
				t.Fatalf("%d takers got the value", won)
			}
		}
	},
}

func cacheValues(t T, k *storageKit) {
	s, _ := k.fresh(t)
	ctx := t.Context()
	want := func(now time.Time, key string, want []byte) {
		t.Helper()
		if v, err := s.Cache.Get(ctx, now, key); err != nil || !bytes.Equal(v, want) || (v == nil) != (want == nil) {
			t.Fatalf("%q: %q %v, want %q", key, v, err, want)
		}
	}
	want(epoch, "none", nil)
	value := []byte("value")
	for _, err := range []error{
		s.Cache.Put(ctx, epoch, "a", value, time.Minute),
		s.Cache.Put(ctx, epoch, "empty", []byte{}, time.Minute),
		s.Cache.Put(ctx, epoch, "\x00 猫 \xff", []byte("name"), time.Minute),
		s.Cache.Put(ctx, epoch, "b", []byte("1"), time.Minute),
		s.Cache.Put(ctx, epoch, "b", []byte("2"), time.Hour),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	clear(value)
	want(epoch, "a", []byte("value"))
	want(epoch, "empty", []byte{})
	want(epoch, "\x00 猫 \xff", []byte("name"))
	want(epoch.Add(61*time.Second), "a", nil)
	want(epoch.Add(61*time.Second), "b", []byte("2"))
	if v, err := s.Cache.Take(ctx, epoch, "a"); err != nil || string(v) != "value" {
		t.Fatalf("take: %q %v", v, err)
	}
	want(epoch, "a", nil)
	if v, err := s.Cache.Take(ctx, epoch.Add(2*time.Hour), "b"); err != nil || v != nil {
		t.Fatalf("take of an ended value: %q %v", v, err)
	}
	if err := s.Cache.Delete(ctx, "empty", "none"); err != nil {
		t.Fatal(err)
	}
	want(epoch, "empty", nil)
}

var limiterCases = map[string]func(T, *storageKit){
	"bucket": limiterBucket,
	"race": func(t T, k *storageKit) {
		s, _ := k.fresh(t)
		won := race(40, func(int) bool {
			wait, err := s.Limiter.Take(t.Context(), epoch, "key", storage.Rate{Burst: 13, Per: time.Minute}, 1)
			if err != nil {
				t.Error(err)
			}
			return wait == 0
		})
		if won != 13 {
			t.Fatalf("%d of 40 passed a burst of 13", won)
		}
	},
}

func limiterBucket(t T, k *storageKit) {
	s, _ := k.fresh(t)
	rate := storage.Rate{Burst: 10, Per: 10 * time.Second}
	take := func(after time.Duration, key string, n uint32) time.Duration {
		t.Helper()
		wait, err := s.Limiter.Take(t.Context(), epoch.Add(after), key, rate, n)
		if err != nil {
			t.Fatal(err)
		}
		return wait
	}
	near := func(got, want time.Duration) {
		t.Helper()
		if d := got - want; d < -50*time.Millisecond || d > 50*time.Millisecond || (want == 0) != (got == 0) {
			t.Fatalf("wait %v, want about %v", got, want)
		}
	}
	near(take(0, "a", 4), 0)
	near(take(0, "a", 6), 0)
	near(take(0, "a", 1), time.Second)
	near(take(0, "b", 10), 0) // another key
	near(take(time.Second, "a", 3), 2*time.Second)
	near(take(3*time.Second, "a", 3), 0) // a refusal took nothing
	near(take(100*time.Second, "a", 10), 0)
	near(take(100*time.Second, "a", 10), 10*time.Second) // never more than the burst
	// A clock that was set back waits at most for a full bucket.
	if w := take(-time.Hour, "a", 1); w > 10*time.Second {
		t.Fatalf("wait %v after the clock was set back", w)
	}
	for _, r := range []storage.Rate{{}, {Burst: 1}, {Per: time.Second}} {
		if _, err := s.Limiter.Take(t.Context(), epoch, "c", r, 1); sdk.KindOf(err) != sdk.Invalid {
			t.Errorf("rate %+v: %v", r, err)
		}
	}
	if _, err := s.Limiter.Take(t.Context(), epoch, "c", rate, 11); sdk.KindOf(err) != sdk.Invalid {
		t.Errorf("more than the burst: %v", err)
	}
}

var busCases = map[string]func(T, *storageKit){
	"order": func(t T, k *storageKit) {
		s, _ := k.fresh(t)
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan string, 1000)
		ended := make(chan error, 2)
		for _, node := range []string{"here", "there"} {
			go func() {
				ended <- s.Bus.Subscribe(ctx, node, func(m []byte) { got <- node + " " + string(m) })
			}()
		}
		publish := func(node string, m ...string) {
			var b [][]byte
			for _, m := range m {
				b = append(b, []byte(m))
			}
			if err := s.Bus.Publish(ctx, node, b); err != nil {
				t.Errorf("publish: %v", err)
			}
		}
		// Delivery is best effort until a subscription stands.
		for _, node := range []string{"here", "there"} {
			for heard := false; !heard; {
				publish(node, "hello")
				select {
				case m := <-got:
					heard = m == node+" hello"
				case <-time.After(20 * time.Millisecond):
				}
			}
		}
		for i := range 100 {
			publish("here", fmt.Sprint(2*i), fmt.Sprint(2*i+1))
		}
		publish("nobody", "lost")
		for i := 0; i < 200; {
			select {
			case m := <-got:
				if m == "here hello" || m == "there hello" {
					continue
				}
				if m != fmt.Sprintf("here %d", i) {
					t.Fatalf("message %q, want number %d", m, i)
				}
				i++
			case <-time.After(10 * time.Second):
				t.Fatalf("message %d did not come", i)
			}
		}
		cancel()
		for range 2 {
			if err := <-ended; err == nil {
				t.Error("Subscribe returned without an error")
			}
		}
	},
}
