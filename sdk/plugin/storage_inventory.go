package plugin

import (
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
)

// inventory runs a call of Inventory.
func (w *worker) inventory(c *call) error {
	r, of := c.parts[0].GetInventory(), w.store.Inventory
	ask := of.Queues
	switch r.Of {
	case wirepb.Inventory_INVENTORY_QUEUES:
	case wirepb.Inventory_INVENTORY_MARKS:
		ask = of.Marks
	case wirepb.Inventory_INVENTORY_KINDS:
		ask = of.Kinds
	default:
		return errCall
	}
	names, err := ask(c.ctx, string(r.After), int(r.Limit))
	if err == nil {
		w.values(c, wire.Bytes(names))
	}
	return err
}

// snapshot runs Snapshots.Snapshot; its answer is empty.
func (w *worker) snapshot(c *call) error {
	names := c.names((*wirepb.StorageRequest).GetSnapshot)
	if len(names) != 1 {
		return errCall
	}
	err := w.store.Snapshots.Snapshot(c.ctx, names[0])
	if err == nil {
		w.reply(c, &wirepb.StorageReply{}, false)
	}
	return err
}

// positions runs a call of Positions; it answers a number, 0 after raising.
func (w *worker) positions(c *call) (err error) {
	r, highest := c.parts[0].GetPositions(), uint64(0)
	if r.Raise {
		err = w.store.Positions.Raise(c.ctx, r.Above)
	} else {
		highest, err = w.store.Positions.Highest(c.ctx)
	}
	if err == nil {
		w.numbers(c, highest)
	}
	return err
}
