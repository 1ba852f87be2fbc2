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
