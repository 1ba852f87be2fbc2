package transfer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// longest is how far ahead of the clock positions may be: a store begins them at the time
// in µs, and one that was opened several times in a second goes a little beyond.
const longest = 10 * time.Second

// ahead counts the queues, and has the target begin above every position of the source: a
// device that has confirmed up to its last one would never see a row below. A target that
// cannot be told begins at the clock, which then must have passed them.
func (t *target) ahead(ctx context.Context) error {
	t.Progress.all.Store(0)
	var last atomic.Uint64
	err := pages(ctx, t.From.Store.Inventory.Queues, queuePage, func(names []string) error {
		t.Progress.all.Add(uint64(len(names)))
		return t.latest(ctx, names, &last)
	})
	if err != nil {
		return err
	}
	if p := t.From.Store.Positions; p != nil { // of queues that are empty by now as well
		if t.highest, err = p.Highest(ctx); err != nil {
			return err
		}
		last.Store(max(last.Load(), t.highest))
	}
	// Also for positions that are past by the clock of this machine: the target may go by
	// another one.
	if p := t.To.Store.Positions; p != nil {
		return p.Raise(ctx, last.Load())
	}
	if last.Load() <= uint64(max(t.Now.UnixMicro(), 0)) {
		return nil
	}
	at := time.UnixMicro(int64(last.Load() + 1)).UTC()
	wait := at.Sub(t.Now)
	if wait > longest {
		return fmt.Errorf("it has given position %d, which is in the future: the clock of this machine is wrong, set it right", last.Load())
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.Now = at
	t.To.Store, err = t.Reopen(ctx)
	return err
}

// latest looks for rows above the clock.
func (t *target) latest(ctx context.Context, names []string, last *atomic.Uint64) error {
	const readers = 8
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for r := range readers {
		group.Go(func() {
			for i := r; i < len(names) && ctx.Err() == nil; i += readers {
				if err := t.above(ctx, names[i], last); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

func (t *target) above(ctx context.Context, queue string, last *atomic.Uint64) error {
	for after := uint64(t.Now.UnixMicro()); ; {
		var rows []storage.Envelope
		err := patiently(ctx, func() (err error) {
			rows, err = t.From.Store.Queues.Read(ctx, t.Now, queue, after, storage.Page{Messages: rowPage, Bytes: rowBytes})
			return err
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		for after = rows[len(rows)-1].Position; ; {
			if l := last.Load(); l >= after || last.CompareAndSwap(l, after) {
				break
			}
		}
	}
}
