package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/plugintest"
)

// The suite runs against the plugin compiled in, and against its binary.
func TestConformance(t *testing.T) {
	for name, p := range map[string]sdk.Plugin{"in process": Plugin, "binary": plugintest.Binary(t, ".")} {
		t.Run(name, func(t *testing.T) { plugintest.Ledger(t, p, plugintest.LedgerOptions{}) })
	}
}

func TestHeadFile(t *testing.T) {
	dir := t.TempDir()
	l, err := ledger.Open(t.Context(), Plugin, sdk.NewEnv(sdk.EnvOptions{State: dir}), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(t.Context())
	records := plugintest.LedgerRecords(t, ledger.Record{}, 3)
	if err := l.Submit(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "head")); err != nil || string(b) != fmt.Sprintf("3 %x\n", records[2].Hash) {
		t.Errorf("%q %v", b, err)
	}
}
