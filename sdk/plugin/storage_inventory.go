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
