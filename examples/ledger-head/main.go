// Command ledger-head is a toy ledger: records as lines in a folder, and the hash of the
// newest one in a file that can be copied to where nobody changes it.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/ledger/journal"
	"github.com/commucat/commucat/sdk/plugin"
)

// Config is [ledger.head] of the relay's configuration.
type Config struct {
	Head string `cfg:"head" default:"head" doc:"file with number and hash of the newest record, in the ledger's own data folder"`
}

// Plugin is the ledger.
var Plugin = ledger.Define(ledger.Descriptor{Name: "head", Version: "1.0.0", Summary: "records in a folder, their head in a file"},
	func(_ context.Context, env sdk.Env, c Config) (ledger.Ledger, error) {
		j, err := journal.Open(journal.Options{Dir: filepath.Join(env.State(), "records")})
		return &book{j, filepath.Join(env.State(), filepath.Base(c.Head))}, err
	})

func main() { plugin.Serve(Plugin) }

type book struct {
	*journal.Journal
	file string
}

// Submit may be called again with the same records: the journal takes each of them once.
func (b *book) Submit(ctx context.Context, add []ledger.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.Append(add); err != nil {
		return err
	}
	head := b.Journal.Head()
	return os.WriteFile(b.file, fmt.Appendf(nil, "%d %x\n", head.Seq, head.Hash), 0o600)
}

func (b *book) Head(ctx context.Context) (ledger.Record, error) { return b.Journal.Head(), ctx.Err() }

func (b *book) Read(ctx context.Context, after uint64, limit int) ([]ledger.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return b.Journal.Read(after, limit)
}

func (b *book) Close(context.Context) error { return b.Journal.Close() }
