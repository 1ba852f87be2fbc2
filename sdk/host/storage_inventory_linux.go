package host

import (
	"context"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/storage"
)

// inventory is storage.Inventory in the other process.
type inventory struct{ *store }

var _ storage.Inventory = inventory{}

func (i inventory) Queues(ctx context.Context, after string, limit int) ([]string, error) {
	return i.names(ctx, wirepb.Inventory_INVENTORY_QUEUES, after, limit)
}

func (i inventory) Marks(ctx context.Context, after string, limit int) ([]string, error) {
	return i.names(ctx, wirepb.Inventory_INVENTORY_MARKS, after, limit)
}

func (i inventory) Kinds(ctx context.Context, after string, limit int) ([]string, error) {
	return i.names(ctx, wirepb.Inventory_INVENTORY_KINDS, after, limit)
}

// names takes nothing but names in order: whoever goes through an inventory would
// otherwise never come to its end.
func (i inventory) names(ctx context.Context, of wirepb.Inventory, after string, limit int) ([]string, error) {
	if err := storage.CheckPage(after, limit); err != nil {
		return nil, err
	}
	if err := i.check(ctx); err != nil {
		return nil, err
	}
	var values [][]byte
	err := i.reads.Call(ctx, one(time.Time{}, &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Inventory{Inventory: &wirepb.InventoryCall{
		Of: of, After: []byte(after), Limit: int64(limit),
	}}}), func(r *wirepb.StorageReply) error {
		if values = wire.ToValues(values, r.GetValues()); len(values) > limit {
			return odd(limit, len(values))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([]string, len(values))
	for j, v := range values {
		if out[j] = string(v); out[j] <= after {
			return nil, &sdk.Error{Kind: sdk.Corrupt, Text: "the plugin's inventory is out of order"}
		}
		after = out[j]
	}
	return out, nil
}

// snapshots is storage.Snapshots in the other process.
type snapshots struct{ *store }

var _ storage.Snapshots = snapshots{}

func (s snapshots) Snapshot(ctx context.Context, name string) error {
	if err := storage.CheckSnapshot(name); err != nil {
		return err
	}
	if err := s.check(ctx); err != nil {
		return err
	}
	return s.writes.Call(ctx, names([]string{name}, func(n *wirepb.Names) *wirepb.StorageRequest {
		return &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Snapshot{Snapshot: n}}
	}), nothing)
}

// positions is storage.Positions in the other process.
type positions struct{ *store }

var _ storage.Positions = positions{}

func (p positions) Highest(ctx context.Context) (uint64, error) {
	return p.ask(ctx, p.reads, &wirepb.PositionsCall{})
}

func (p positions) Raise(ctx context.Context, above uint64) error {
	if err := storage.CheckRaise(above); err != nil {
		return err
	}
	_, err := p.ask(ctx, p.writes, &wirepb.PositionsCall{Raise: true, Above: above})
	return err
}

func (p positions) ask(ctx context.Context, by *wire.Caller, c *wirepb.PositionsCall) (uint64, error) {
	n, err := p.numbers(ctx, by, 1, one(time.Time{}, &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Positions{Positions: c}}))
	if err != nil {
		return 0, err
	}
	return n[0], nil
}
