package redis_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	plugin "github.com/commucat/commucat/plugins/storage/redis"
	"github.com/commucat/commucat/plugins/storage/redis/redisserver"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/plugintest/selfsigned"
	"github.com/commucat/commucat/sdk/storage"
)

// until repeats ok, which another process makes true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// listener is a node that listens as the relay does: it subscribes again when a
// subscription has ended.
type listener struct {
	got   chan string
	ended chan error
}

func listen(t *testing.T, st storage.Store, node string) *listener {
	t.Helper()
	l := &listener{got: make(chan string, 1<<12), ended: make(chan error, 1<<12)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			err := st.Bus.Subscribe(ctx, node, func(m []byte) { l.got <- string(m) })
			select {
			case l.ended <- err:
			default:
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return l
}

// hears repeats a message until it arrives: publishing is best effort.
func (l *listener) hears(t *testing.T, st storage.Store, node, text string) {
	t.Helper()
	until(t, text+" arrives", func() bool {
		if st.Bus.Publish(t.Context(), node, [][]byte{[]byte(text)}) != nil {
			return false
		}
		for {
			select {
			case m := <-l.got:
				if m == text {
					return true
				}
			case <-time.After(20 * time.Millisecond):
				return false
			}
		}
	})
}

// A server that hangs keeps its connections and answers nothing. Who asks while this is
// found out waits for the timeout, and everybody after that not at all: the 20,000
// calls below would take hours. The subscription ends as well, so that the relay knows.
func TestServerHangs(t *testing.T) {
	t.Parallel()
	s := redisserver.Start(t)
	st := open(t, map[string]any{"address": []any{s.Address()}, "timeout": "500ms"})
	now := time.Now()
	claim := []storage.Claim{{Device: "d", Node: "n", Session: "s", TTL: time.Hour}}
	if _, err := st.Routes.Claim(t.Context(), now, claim); err != nil {
		t.Fatal(err)
	}
	l := listen(t, st, "n")
	l.hears(t, st, "n", "before")

	thaw := s.Freeze()
	calls := map[string]func() error{
		"claim":  func() error { _, err := st.Routes.Claim(t.Context(), now, claim); return err },
		"lookup": func() error { _, err := st.Routes.Lookup(t.Context(), now, []string{"d"}); return err },
		"get":    func() error { _, err := st.Cache.Get(t.Context(), now, "k"); return err },
		"put":    func() error { return st.Cache.Put(t.Context(), now, "k", []byte("v"), time.Hour) },
		"announce": func() error {
			return st.Presence.Announce(t.Context(), now, []storage.Beat{{Device: "d", State: "online", TTL: time.Hour}})
		},
		"take": func() error {
			_, err := st.Limiter.Take(t.Context(), now, "k", storage.Rate{Burst: 1, Per: time.Minute}, 1)
			return err
		},
		"publish": func() error { return st.Bus.Publish(t.Context(), "n", [][]byte{{1}}) },
		"ready":   func() error { return st.Ready(t.Context()) },
	}
	var wg sync.WaitGroup
	for name, f := range calls {
		for range 10 {
			wg.Go(func() {
				if err := f(); !errors.Is(err, sdk.Unavailable) {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
	}
	wg.Wait()
	for i := range 20_000 {
		for name, f := range calls {
			if i%100 != 0 && name != "lookup" {
				continue
			}
			if err := f(); !errors.Is(err, sdk.Unavailable) {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	if err := <-l.ended; !errors.Is(err, sdk.Unavailable) {
		t.Errorf("the subscription: %v", err)
	}
	thaw()
	until(t, "it is used again", func() bool { return st.Ready(t.Context()) == nil })
	r, err := st.Routes.Lookup(t.Context(), now, []string{"d"})
	if err != nil || r[0].Node != "n" {
		t.Errorf("%+v %v", r, err)
	}
	l.hears(t, st, "n", "after")
}

// Closing does not wait for a server that hangs.
func TestCloseWhileServerHangs(t *testing.T) {
	s := redisserver.Start(t)
	st, err := storage.Open(t.Context(), plugin.Plugin(), nil, map[string]any{"address": []any{s.Address()}, "timeout": "1m"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Freeze()()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := st.Cache.Get(ctx, time.Now(), "k"); !errors.Is(err, sdk.Unavailable) {
		t.Errorf("%v", err)
	}
	if err := st.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// aclLine is the user of docs/cluster.md.
const aclLine = "commucat on >secret ~* &* +@all -@admin -@dangerous"

// users are the arguments that make a server know users.
func users(lines ...string) (args []string) {
	for _, l := range lines {
		args = append(append(args, "--user"), strings.Fields(l)...)
	}
	return args
}

func TestTLS(t *testing.T) {
	ours, theirs := selfsigned.New(t), selfsigned.New(t)
	s := redisserver.StartTLS(t, ours.CertFile, ours.KeyFile, users(aclLine, "guest on >secret ~* &* +ping", "default off")...)
	for name, test := range map[string]struct {
		raw  map[string]any
		want error
		text string
	}{
		"all is well":           {map[string]any{"tls": true, "ca": ours.CertFile, "user": "commucat", "password": "secret"}, nil, ""},
		"another authority":     {map[string]any{"tls": true, "ca": theirs.CertFile, "user": "commucat", "password": "secret"}, sdk.Denied, "ca"},
		"the system's":          {map[string]any{"tls": true, "user": "commucat", "password": "secret"}, sdk.Denied, "ca"},
		"another name":          {map[string]any{"tls": true, "ca": ours.CertFile, "user": "commucat", "password": "secret", "address": []any{fmt.Sprintf("localhost:%d", s.Port)}}, sdk.Denied, "ca"},
		"a wrong password":      {map[string]any{"tls": true, "ca": ours.CertFile, "user": "commucat", "password": "wrong"}, sdk.Denied, "refused"},
		"a user who is too low": {map[string]any{"tls": true, "ca": ours.CertFile, "user": "guest", "password": "secret"}, sdk.Denied, "ACL"},
	} {
		t.Run(name, func(t *testing.T) {
			raw := map[string]any{"address": []any{s.Address()}, "timeout": "5s"}
			for k, v := range test.raw {
				raw[k] = v
			}
			st, err := storage.Open(t.Context(), plugin.Plugin(), nil, raw)
			if err == nil {
				defer st.Close(context.Background())
				err = volatile(t.Context(), st)
			}
			if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v, want %v", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
	t.Run("without TLS", func(t *testing.T) {
		st := open(t, map[string]any{"address": []any{s.Address()}, "user": "commucat", "password": "secret", "timeout": "5s"})
		if err := st.Ready(t.Context()); !errors.Is(err, sdk.Unavailable) {
			t.Error(err)
		}
	})
}

// volatile uses each part once.
func volatile(ctx context.Context, st storage.Store) error {
	now := time.Now()
	_, err := st.Routes.Claim(ctx, now, []storage.Claim{{Device: "d", Node: "n", Session: "s", TTL: time.Hour}})
	if err == nil {
		_, err = st.Routes.Lookup(ctx, now, []string{"d", "e"})
	}
	if err == nil {
		err = st.Cache.Put(ctx, now, "k", []byte("v"), time.Hour)
	}
	if err == nil {
		err = st.Presence.Announce(ctx, now, []storage.Beat{{Device: "d", State: "online", TTL: time.Hour}, {Device: "e", State: "online", TTL: time.Hour}})
	}
	if err == nil {
		_, err = st.Limiter.Take(ctx, now, "l", storage.Rate{Burst: 10, Per: time.Minute}, 1)
	}
	if err == nil {
		err = st.Bus.Publish(ctx, "n", [][]byte{{1}})
	}
	return err
}

// The master is killed; the sentinel makes the replica master, and the plugin follows.
func TestSentinel(t *testing.T) {
	t.Parallel()
	master := redisserver.Start(t, "--repl-diskless-sync-delay", "0")
	redisserver.Start(t, "--replicaof", fmt.Sprintf("127.0.0.1 %d", master.Port))
	sentinel := redisserver.StartSentinel(t, "main", master)
	until(t, "the sentinel knows the replica", func() bool {
		return strings.Contains(sentinel.Ask("SENTINEL replicas main"), "master-link-status\r\n$2\r\nok")
	})
	st := open(t, map[string]any{"address": []any{sentinel.Address()}, "sentinel": "main", "timeout": "1s"})
	now := time.Now()
	claim := []storage.Claim{{Device: "d", Node: "n", Session: "s", TTL: time.Hour}}
	first, err := st.Routes.Claim(t.Context(), now, claim)
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t, st, "n")
	l.hears(t, st, "n", "before")
	master.Kill()
	if err := volatile(t.Context(), st); !errors.Is(err, sdk.Unavailable) {
		t.Errorf("while there is no master: %v", err)
	}
	until(t, "the new master is used", func() bool { return volatile(t.Context(), st) == nil })
	second, err := st.Routes.Claim(t.Context(), now, claim)
	if err != nil || second[0] <= first[0] {
		t.Errorf("fence %d after %d: %v", second, first, err)
	}
	l.hears(t, st, "n", "after")
}

// moved gives a key's slot to another server of the cluster.
func moved(t *testing.T, all []*redisserver.Server, key string) {
	t.Helper()
	var slot int
	if _, err := fmt.Sscanf(all[0].Ask("CLUSTER KEYSLOT %s", key), ":%d", &slot); err != nil {
		t.Fatal(err)
	}
	owner := slot * len(all) / 16384
	to := all[(owner+1)%len(all)]
	id := strings.Fields(to.Ask("CLUSTER MYID"))[1]
	for _, s := range append([]*redisserver.Server{to}, all...) {
		if answer := s.Ask("CLUSTER SETSLOT %d NODE %s", slot, id); !strings.HasPrefix(answer, "+OK") {
			t.Fatalf("%q", answer)
		}
	}
}

// Three servers share the keys. The bus moves from one to another; then one is killed and
// comes back empty.
func TestCluster(t *testing.T) {
	t.Parallel()
	all := redisserver.StartCluster(t, 3, users(aclLine)...)
	addresses := []any{all[0].Address(), all[1].Address(), all[2].Address()}
	st := open(t, map[string]any{"address": addresses, "timeout": "1s", "user": "commucat", "password": "secret"})
	now := time.Now()
	const devices = 64 // some on each server
	var claims []storage.Claim
	var names []string
	for i := range devices {
		names = append(names, fmt.Sprintf("device-%d", i))
		claims = append(claims, storage.Claim{Device: names[i], Node: "n", Session: "s", TTL: time.Hour})
	}
	routes := func() error {
		fences, err := st.Routes.Claim(t.Context(), now, claims)
		if err != nil {
			return err
		}
		got, err := st.Routes.Lookup(t.Context(), now, names)
		if err != nil {
			return err
		}
		for i, r := range got {
			if r.Device != names[i] || r.Fence != fences[i] {
				return fmt.Errorf("%+v, want fence %d of %s", r, fences[i], names[i])
			}
		}
		return nil
	}
	if err := errors.Join(routes(), volatile(t.Context(), st)); err != nil {
		t.Fatal(err)
	}
	l := listen(t, st, "n")
	l.hears(t, st, "n", "before")
	moved(t, all, "commucat:bus:n")
	if err := <-l.ended; !errors.Is(err, sdk.Unavailable) {
		t.Errorf("the subscription: %v", err)
	}
	l.hears(t, st, "n", "moved")
	conforms(t, map[string]any{"address": addresses, "user": "commucat", "password": "secret"})
	victims := all[2:]
	if os.Getenv("COMMUCAT_SOAK") != "" {
		victims = all
	}
	for _, s := range victims {
		s.Kill()
		if err := routes(); !errors.Is(err, sdk.Unavailable) {
			t.Errorf("while one is gone: %v", err)
		}
		s.Run()
		until(t, "all is well again", func() bool { return routes() == nil && volatile(t.Context(), st) == nil })
		l.hears(t, st, "n", "after")
	}
}
