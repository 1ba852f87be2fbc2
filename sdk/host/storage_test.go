package host_test

import (
	"context"
	"syscall"
	"testing"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/plugintest"
	"github.com/commucat/commucat/sdk/storage"
)

const bundle = "github.com/commucat/commucat/examples/bundle"

// named finds a plugin of a process.
func named(t testing.TB, p *host.Process, name string) sdk.Plugin {
	t.Helper()
	for _, one := range p.Plugins() {
		if one.Name() == name {
			return one
		}
	}
	t.Fatalf("no plugin %s", name)
	return nil
}

func TestStorageConformance(t *testing.T) {
	// A crash is followed by another process for everything that is opened later.
	file := plugintest.Build(t, bundle)
	var p *host.Process
	start := func() { p = plugintest.Start(t, file, host.Options{}) }
	start()
	t.Run("sqlite", func(t *testing.T) {
		plugintest.Storage(t, func(ctx context.Context, dir string) (storage.Store, error) {
			return storage.Open(ctx, named(t, p, "sqlite"), nil, map[string]any{"path": dir})
		}, plugintest.StorageOptions{Crash: func(t testing.TB) {
			if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-p.Done()
			start()
		}})
	})
	t.Run("memory", func(t *testing.T) {
		plugintest.Storage(t, func(ctx context.Context, _ string) (storage.Store, error) {
			return storage.Open(ctx, named(t, p, "memory"), nil, map[string]any{"durable": true})
		}, plugintest.StorageOptions{Forgets: true})
	})
}

func TestLedgerConformance(t *testing.T) {
	p := plugintest.Start(t, plugintest.Build(t, bundle), host.Options{})
	plugintest.Ledger(t, named(t, p, "file"), plugintest.LedgerOptions{Config: map[string]any{"rotate": "4KiB"}})
}
