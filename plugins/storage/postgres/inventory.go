package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/sdk/storage"
)

// inventory implements storage.Inventory.
type inventory store

const (
	queueNames = `SELECT name FROM queue AS q WHERE name > $1 AND EXISTS (SELECT 1 FROM message AS m WHERE m.queue = q.no AND m.position > q.done)
	ORDER BY name LIMIT $2`
	markNames = `SELECT key FROM mark WHERE key > $1 ORDER BY key LIMIT $2`
	// kindNames goes from one kind to the next by the index: there are few of them
	// among many records.
	kindNames = `WITH RECURSIVE kinds AS (
		(SELECT kind FROM record WHERE kind > $1 ORDER BY kind LIMIT 1)
		UNION ALL
		SELECT (SELECT r.kind FROM record AS r WHERE r.kind > k.kind ORDER BY r.kind LIMIT 1) FROM kinds AS k WHERE k.kind IS NOT NULL
	) SELECT kind FROM kinds WHERE kind IS NOT NULL LIMIT $2`
)

// Queues implements storage.Inventory.
func (i *inventory) Queues(ctx context.Context, after string, limit int) ([]string, error) {
	return i.names(ctx, queueNames, after, []byte(after), limit)
}

// Marks implements storage.Inventory.
func (i *inventory) Marks(ctx context.Context, after string, limit int) ([]string, error) {
	return i.names(ctx, markNames, after, []byte(after), limit)
}

// Kinds implements storage.Inventory.
func (i *inventory) Kinds(ctx context.Context, after string, limit int) ([]string, error) {
	return i.names(ctx, kindNames, after, after, limit)
}

func (i *inventory) names(ctx context.Context, query, after string, arg any, limit int) ([]string, error) {
	if err := storage.CheckPage(after, limit); err != nil {
		return nil, err
	}
	ctx, cancel := (*store)(i).within(ctx)
	defer cancel()
	rows, err := i.pool.Query(ctx, query, arg, limit)
	if err != nil {
		return nil, plain("inventory", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return nil, plain("inventory", err)
	}
	out := make([]string, len(names))
	for j, n := range names {
		out[j] = string(n)
	}
	return out, nil
}
