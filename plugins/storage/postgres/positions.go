package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/commucat/commucat/sdk/storage"
)

// positions implements storage.Positions.
type positions store

const (
	highestPosition = `SELECT greatest((SELECT max(last) FROM queue), (SELECT max(floor) FROM timeline), 0)`
	// raiseFloors leaves a history that has yet to write its first row to firstWrite,
	// whose own floor would be lower: so it comes after that, in the same transaction.
	raiseFloors = `UPDATE timeline SET floor = greatest(floor, $1)`
)

// Highest implements storage.Positions.
func (p *positions) Highest(ctx context.Context) (uint64, error) {
	s := (*store)(p)
	ctx, cancel := s.within(ctx)
	defer cancel()
	var n int64
	if err := s.pool.QueryRow(ctx, highestPosition).Scan(&n); err != nil {
		return 0, plain("positions", err)
	}
	return uint64(n), nil
}

// Raise implements storage.Positions. Another node learns of it when it opens the store.
func (p *positions) Raise(ctx context.Context, above uint64) error {
	if err := storage.CheckRaise(above); err != nil {
		return err
	}
	s := (*store)(p)
	ctx, cancel := s.within(ctx)
	defer cancel()
	err := s.write(ctx, s.pool, func(tx pgx.Tx, _ int64) error {
		_, err := tx.Exec(ctx, raiseFloors, int64(above))
		return err
	})
	s.lines.forget() // also what the write has just learned
	return plain("positions", err)
}

// forget has the floors read anew.
func (t *timelines) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.floors = nil
}
