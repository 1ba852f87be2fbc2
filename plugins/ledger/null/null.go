package null

import (
	"context"
	"sync/atomic"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// Config is the ledger's configuration: there is none.
type Config struct{}

// Plugin is the null ledger.
var Plugin = ledger.Define(ledger.Descriptor{
	Name: "null", Version: "1.0.0", Summary: "keeps nothing", Forgets: true,
}, func(context.Context, sdk.Env, Config) (ledger.Ledger, error) { return new(null), nil })

type null struct{ closed atomic.Bool }

var _ ledger.Ledger = (*null)(nil)

func (n *null) usable(ctx context.Context) error {
	if n.closed.Load() {
		return &sdk.Error{Kind: sdk.Closed, Op: "ledger null", Text: "it has been closed"}
	}
	return ctx.Err()
}

// Submit checks the form, so that a mistake shows before another ledger is used.
func (n *null) Submit(ctx context.Context, records []ledger.Record) error {
	for _, r := range records {
		if err := r.Check(); err != nil {
			return err
		}
	}
	return n.usable(ctx)
}

func (n *null) Head(ctx context.Context) (ledger.Record, error) {
	return ledger.Record{}, n.usable(ctx)
}

func (n *null) Read(ctx context.Context, _ uint64, _ int) ([]ledger.Record, error) {
	return nil, n.usable(ctx)
}

func (n *null) Close(context.Context) error {
	n.closed.Store(true)
	return nil
}
