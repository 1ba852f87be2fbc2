package memory

import (
	"context"
	"maps"
	"slices"

	"github.com/commucat/commucat/sdk/storage"
)

// inventory implements storage.Inventory.
type inventory struct {
	q *queues
	d *directory
}

func (i inventory) Queues(_ context.Context, after string, limit int) ([]string, error) {
	i.q.mu.Lock()
	defer i.q.mu.Unlock()
	used := map[string]struct{}{}
	for name, q := range i.q.queues {
		if len(q.rows) > 0 {
			used[name] = struct{}{}
		}
	}
	return page(used, after, limit)
}

func (i inventory) Marks(_ context.Context, after string, limit int) ([]string, error) {
	i.q.mu.Lock()
	defer i.q.mu.Unlock()
	return page(i.q.marks, after, limit)
}

func (i inventory) Kinds(_ context.Context, after string, limit int) ([]string, error) {
	i.d.mu.Lock()
	defer i.d.mu.Unlock()
	used := map[string]struct{}{}
	for k := range i.d.records {
		used[k.Kind] = struct{}{}
	}
	return page(used, after, limit)
}

// page gives the first names of m after a name.
func page[V any](m map[string]V, after string, limit int) ([]string, error) {
	if err := storage.CheckPage(after, limit); err != nil {
		return nil, err
	}
	all := slices.Sorted(maps.Keys(m))
	from, found := slices.BinarySearch(all, after)
	if found {
		from++
	}
	return all[from:min(len(all), from+limit)], nil
}
