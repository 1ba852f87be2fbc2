package debug

import (
	"context"
	"encoding/hex"
	"log/slog"
	"sync"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
)

// Config is the ledger's configuration, [ledger.debug].
type Config struct {
	Metadata bool `cfg:"metadata" doc:"write the record's content too, not only its number and digest"`
}

// Plugin is the debug ledger.
var Plugin = ledger.Define(ledger.Descriptor{
	Name: "debug", Version: "1.0.0", Summary: "one log line for each record, nothing kept", Forgets: true,
}, func(_ context.Context, env sdk.Env, c Config) (ledger.Ledger, error) {
	return &debug{log: env.Log(), metadata: c.Metadata}, nil
})

type debug struct {
	log      *slog.Logger
	metadata bool

	mu     sync.Mutex
	chain  ledger.Chain
	begun  bool
	closed bool
}

var _ ledger.Ledger = (*debug)(nil)

func (d *debug) Submit(ctx context.Context, records []ledger.Record) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return err
	}
	chain, begun := d.chain, d.begun
	var fresh []ledger.Record
	for _, r := range records {
		if err := r.Check(); err != nil {
			return err
		}
		if begun && r.Seq <= d.chain.Head.Seq {
			if r.Seq == d.chain.Head.Seq && !r.Equal(d.chain.Head) {
				return conflict(nil)
			}
			continue // seen; older ones are forgotten and cannot be compared
		}
		if !begun { // the chain may be older than this process
			chain.Head, begun = ledger.Record{Seq: r.Seq - 1, Hash: r.Prev}, true
		}
		if err := chain.Add(r); err != nil {
			return conflict(err)
		}
		fresh = append(fresh, r)
	}
	for _, r := range fresh {
		args := []any{"seq", r.Seq, "digest", hex.EncodeToString(r.Digest[:])}
		if d.metadata {
			args = append(args, "metadata", string(r.Metadata))
		}
		d.log.InfoContext(ctx, "ledger record", args...)
	}
	d.chain, d.begun = chain, begun
	return nil
}

func conflict(err error) error {
	return &sdk.Error{Kind: sdk.Conflict, Op: "ledger debug", Text: "the record does not follow", Err: err}
}

func (d *debug) usable(ctx context.Context) error {
	if d.closed {
		return &sdk.Error{Kind: sdk.Closed, Op: "ledger debug", Text: "it has been closed"}
	}
	return ctx.Err()
}

// Head is the last record seen in this process.
func (d *debug) Head(ctx context.Context) (ledger.Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.chain.Head, d.usable(ctx)
}

// Read has nothing to give.
func (d *debug) Read(ctx context.Context, _ uint64, _ int) ([]ledger.Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return nil, d.usable(ctx)
}

func (d *debug) Close(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}
