package plugin

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/storage"
	"github.com/commucat/commucat/sdk/transport"
)

// instance is one opened plugin.
type instance struct {
	id     uint64
	plugin sdk.Plugin
	env    *env

	transport transport.Opened
	store     *storage.Store
	ledger    ledger.Ledger

	mu        sync.Mutex
	listeners map[uint64]*listener
}

func (i *instance) all() []*listener {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Collect(maps.Values(i.listeners))
}

// close ends what the instance began.
func (i *instance) close(ctx context.Context) error {
	for _, l := range i.all() {
		l.close()
	}
	var err error
	switch {
	case i.transport != nil:
		err = i.transport.Close()
	case i.store != nil && i.store.Close != nil:
		err = i.store.Close(ctx)
	case i.ledger != nil:
		err = i.ledger.Close(ctx)
	}
	i.env.close()
	return err
}

// listener gives a listener by its number.
func (i *instance) listener(number uint64) (*listener, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	l, ok := i.listeners[number]
	if !ok {
		return nil, &sdk.Error{Kind: sdk.Closed, Text: "the listener is closed"}
	}
	return l, nil
}
