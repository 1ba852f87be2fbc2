package server

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/audit"
	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/front"
	"github.com/commucat/commucat/core/keyring"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/pluginhost"
)

// reloadServer is as much of a Server as a reload needs.
func reloadServer(t *testing.T) *Server {
	t.Helper()
	s, _ := keyedServer(t)
	ring, _, err := keyring.Open(filepath.Join(t.TempDir(), "keys"), keyring.Options{Domain: "relay.example"})
	if err != nil {
		t.Fatal(err)
	}
	cert, key, _, err := ring.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	if s.files, err = front.OpenFiles([]front.Pair{{Certificate: cert, Key: key}}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if s.audit, err = audit.Open(t.Context(), audit.Options{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.audit.Close(context.Background()) })
	s.current, s.metrics, s.plugging = config.Default(), metrics.New(metrics.Options{}), make(chan struct{}, 1)
	s.opt.Level, s.opt.Clock, s.transports.all = new(slog.LevelVar), time.Now, map[string]*pluginhost.Transport{}
	s.host = pluginhost.New(pluginhost.Options{Catalog: pluginhost.NewCatalog(t.TempDir()), State: t.TempDir()})
	if err := os.MkdirAll(s.data.path(stateDir), 0o700); err != nil {
		t.Fatal(err)
	}
	s.working, s.endWork = context.WithCancelCause(context.Background())
	t.Cleanup(s.endFollowing)
	return s
}

// What needs no plugin holds at once while one is being upgraded, for as many reloads as
// come; of what needs plugins the newest counts.
func TestReloadBesideAnUpgrade(t *testing.T) {
	s := reloadServer(t)
	next := config.Default()
	s.opt.Load = func() (*config.Config, error) { c := *next; return &c, nil }
	if err := s.turn(t.Context()); err != nil { // as an upgrade that hangs
		t.Fatal(err)
	}
	var all []*Following
	for _, level := range []string{"debug", "warn", "error"} {
		next.Log.Level = level
		next.Transports = map[string]config.Transport{level: {Enabled: true, Plugin: "none"}}
		f, err := s.Reload()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
		var want slog.Level
		if err := want.UnmarshalText([]byte(level)); err != nil || s.opt.Level.Level() != want {
			t.Errorf("%v, want %v", s.opt.Level.Level(), want)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	var part *PartError
	if err := all[2].Wait(gone); !errors.As(err, &part) {
		t.Errorf("what follows is said to be there: %v", err)
	}
	if len(s.running()) != 0 {
		t.Error("two start plugins at once")
	}
	s.pass()
	for _, f := range all {
		if err := f.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if r := s.running(); len(r) != 1 || r[0].Name() != "error" {
		t.Errorf("not the newest alone: %v", r)
	}
	s.host.Close()
	if err := s.addTransport("late", pluginhost.TransportSpec{Spec: pluginhost.Spec{Name: "late", Plugin: "none"}}); err == nil {
		t.Error("a plugin is started that nobody would end")
	}
}

// A relay that stops waits for no plugin that a reload waits for.
func TestReloadWhileStopping(t *testing.T) {
	s := reloadServer(t)
	next := config.Default()
	next.Relay.Registration = string(account.Closed)
	s.opt.Load = func() (*config.Config, error) { return next, nil }
	if err := s.turn(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := s.Reload()
	if err != nil {
		t.Fatal(err)
	}
	s.endFollowing()
	var part *PartError
	if err := f.Wait(t.Context()); !errors.As(err, &part) || !errors.Is(err, errStopping) {
		t.Error(err)
	}
	if _, err := s.Reload(); !errors.Is(err, errStopping) {
		t.Error(err)
	}
}

// What --verbose has set stays until the file says something else.
func TestReloadKeepsTheLevel(t *testing.T) {
	s := reloadServer(t)
	s.opt.Level.Set(slog.LevelDebug)
	s.opt.Load = func() (*config.Config, error) { return config.Default(), nil }
	if f, err := s.Reload(); err != nil || f.Wait(t.Context()) != nil {
		t.Fatal(err)
	}
	if l := s.opt.Level.Level(); l != slog.LevelDebug {
		t.Error(l)
	}
}

// TestCloseWithoutReloads: what reads a stopped relay's folder (audit verify, doctor, storage
// copy) makes a Server that never reloads, and closes it.
func TestCloseWithoutReloads(t *testing.T) {
	if err := new(Server).close(t.Context()); err != nil {
		t.Error(err)
	}
}
