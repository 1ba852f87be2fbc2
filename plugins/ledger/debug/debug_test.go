package debug_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/commucat/commucat/plugins/ledger/debug"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/plugintest"
)

func TestConformance(t *testing.T) {
	plugintest.Ledger(t, debug.Plugin, plugintest.LedgerOptions{})
}

func TestWritesOneLine(t *testing.T) {
	for _, metadata := range []bool{false, true} {
		var out bytes.Buffer
		env := sdk.NewEnv(sdk.EnvOptions{Log: slog.New(slog.NewTextHandler(&out, nil))})
		l, err := ledger.Open(t.Context(), debug.Plugin, env, map[string]any{"metadata": metadata})
		if err != nil {
			t.Fatal(err)
		}
		r, err := ledger.Next(ledger.Record{Seq: 6}, time.Unix(1, 0), [32]byte{0xab}, []byte(`{"action":"start"}`))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := l.Submit(t.Context(), []ledger.Record{r}); err != nil {
				t.Fatal(err)
			}
		}
		if s := out.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "seq=7 digest=ab00") || strings.Contains(s, "action") != metadata {
			t.Error(s)
		}
	}
}
