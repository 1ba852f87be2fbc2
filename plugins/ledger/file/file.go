package file

import (
	"context"
	"path/filepath"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/ledger/journal"
)

// Config is the ledger's configuration, [ledger.file].
type Config struct {
	Path   string   `cfg:"path" default:"records" max:"4096" doc:"folder; a relative one lies in the ledger's own data folder"`
	Rotate sdk.Size `cfg:"rotate" default:"64MiB" min:"4KiB" max:"16GiB" doc:"size at which a new file is begun; old ones are kept"`
	Sync   string   `cfg:"sync" default:"always" enum:"always,interval,never" doc:"when a record is on stable storage: before it counts as written, within a second, or when the system likes"`
}

// Plugin is the file ledger.
var Plugin = ledger.Define(ledger.Descriptor{
	Name: "file", Version: "1.0.0", Summary: "records as JSON lines in a folder, chained by hash",
}, open)

func open(_ context.Context, env sdk.Env, c Config) (ledger.Ledger, error) {
	dir := c.Path
	if !filepath.IsAbs(dir) {
		if env.State() == "" {
			return nil, &sdk.Error{Kind: sdk.Invalid, Op: "path", Text: "must be absolute where no data folder is lent"}
		}
		dir = filepath.Join(env.State(), dir)
	}
	j, err := journal.Open(journal.Options{
		Dir: dir, Rotate: c.Rotate, Sync: journal.Policy(c.Sync),
		Repaired: func(file string, bytes int64) {
			env.Log().Warn("ledger end repaired after a crash", "file", file, "bytes", bytes)
		},
	})
	if err != nil {
		return nil, err
	}
	return &file{journal: j}, nil
}

type file struct{ journal *journal.Journal }

var _ ledger.Ledger = (*file)(nil)

// Submit ends early only between records: a write that has begun is finished.
func (f *file) Submit(ctx context.Context, r []ledger.Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return f.journal.Append(r)
}

func (f *file) Head(ctx context.Context) (ledger.Record, error) {
	if err := ctx.Err(); err != nil {
		return ledger.Record{}, err
	}
	return f.journal.Head(), nil
}

func (f *file) Read(ctx context.Context, after uint64, limit int) ([]ledger.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return f.journal.Read(after, limit)
}

func (f *file) Close(context.Context) error { return f.journal.Close() }
