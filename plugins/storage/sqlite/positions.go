package sqlite

import (
	"context"

	"github.com/commucat/commucat/sdk/storage"
)

// Highest implements storage.Positions: the bound that is kept lies a block of a second or
// less above what was given.
func (s *queues) Highest(ctx context.Context) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, unavailable("positions", err)
	}
	return s.engine.high()
}

// Raise implements storage.Positions.
func (s *queues) Raise(ctx context.Context, above uint64) error {
	if err := storage.CheckRaise(above); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return unavailable("positions", err)
	}
	if err := s.persist(above); err != nil {
		return err
	}
	// Between the two locks of a stripe no append is under way in it.
	for i := range s.stripes {
		st := &s.stripes[i]
		st.appending.Lock()
		st.mu.Lock()
		if i == 0 { // queues that are read in from now on
			s.lift(above)
		}
		for _, q := range st.queues {
			q.last = max(q.last, above)
		}
		st.mu.Unlock()
		st.appending.Unlock()
	}
	return nil
}

// lift raises the floor.
func (x *index) lift(to uint64) {
	for {
		f := x.floor.Load()
		if to <= f || x.floor.CompareAndSwap(f, to) {
			return
		}
	}
}
