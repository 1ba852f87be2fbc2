package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/plugins/ledger/syslog"
	"github.com/commucat/commucat/plugins/ledger/tlog"
	"github.com/commucat/commucat/plugins/storage/postgres"
	"github.com/commucat/commucat/plugins/storage/redis"
	"github.com/commucat/commucat/sdk"
)

// TestPluginKeys: docs/plugin-keys.md lists what the storages and ledgers understand,
// the compiled-in ones and those that are programs of their own; -update writes it.
func TestPluginKeys(t *testing.T) {
	const page = "../../docs/plugin-keys.md"
	var b bytes.Buffer
	b.WriteString(`# Keys of the storages and ledgers

<!-- Made by go test ./cmd/commucat -run TestPluginKeys -update. Do not edit. -->

Beside the keys that every relay has ([configuration](configuration.md)), each storage and ledger has
keys of its own. The built-in transports have none, those of the others are in their pages. What is not
built in is added first ([plugins](plugins.md)); how PostgreSQL and Redis go together is in [several
relays as one](cluster.md).
`)
	separate := []sdk.Plugin{postgres.Plugin(), redis.Plugin(), tlog.Plugin, syslog.Plugin}
	own := len(plugins())
	for i, p := range append(plugins(), separate...) {
		kind, table := "Ledger", "ledger."+p.Name()
		if p.Kind() == sdk.Storage {
			kind, table = "Storage", "storage"
			if p.Name() != config.Default().Storage.Backend && p.Name() != "postgres" {
				table = "plugin." + p.Name()
			}
		}
		fields, summary := sdk.Fields(p.Config()), p.Summary()
		summary = strings.ToUpper(summary[:1]) + summary[1:]
		fmt.Fprintf(&b, "\n## %s `%s`\n\n%s.", kind, p.Name(), summary)
		if i >= own {
			fmt.Fprintf(&b, " A program of its own, `commucat-%s-%s`.", strings.ToLower(kind), p.Name())
		}
		if len(fields) == 0 {
			b.WriteString(" It has no keys.\n")
			continue
		}
		fmt.Fprintf(&b, " Its keys stand in `[%s]`.\n\n%s", table, config.KeyTable(fields))
	}
	if *update {
		if err := os.WriteFile(page, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(b.String(), string(have)); d != "" {
		t.Errorf("%s (-want +have; go test -update writes it):\n%s", page, d)
	}
}
