package file_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/ledger/file"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/plugintest"
)

func TestConformance(t *testing.T) {
	for _, sync := range []string{"always", "interval", "never"} {
		t.Run(sync, func(t *testing.T) {
			plugintest.Ledger(t, file.Plugin, plugintest.LedgerOptions{
				Config: map[string]any{"sync": sync, "rotate": "4KiB"},
			})
		})
	}
}

func TestBrokenChainIsRefused(t *testing.T) {
	state := t.TempDir()
	env := sdk.NewEnv(sdk.EnvOptions{State: state})
	l, err := ledger.Open(t.Context(), file.Plugin, env, nil)
	if err != nil {
		t.Fatal(err)
	}
	prev := ledger.Record{}
	for range 3 {
		r, err := ledger.Next(prev, time.Unix(1, 0), [32]byte{}, []byte(`{"action":"test"}`))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Submit(t.Context(), []ledger.Record{r}); err != nil {
			t.Fatal(err)
		}
		prev = r
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(state, "records", "00000000000000000001.jsonl")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(text), "test", "tost", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = ledger.Open(t.Context(), file.Plugin, env, nil)
	if !errors.Is(err, sdk.Corrupt) || !strings.Contains(err.Error(), name+":1: ") || !strings.Contains(err.Error(), "record 1 was changed") {
		t.Error(err)
	}
}

func TestNeedsAFolder(t *testing.T) {
	if _, err := ledger.Open(t.Context(), file.Plugin, nil, nil); !errors.Is(err, sdk.Invalid) {
		t.Error(err)
	}
	l, err := ledger.Open(t.Context(), file.Plugin, nil, map[string]any{"path": t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
