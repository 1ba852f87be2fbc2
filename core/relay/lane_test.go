package relay

import (
	"fmt"
	"testing"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// A backend may lock by storage.Lane: rows of two such lanes in one batch would make
// batches wait for each other's syncs.
func TestBatchesKeepToStorageLanes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const lanes = 4
		seen := map[int]int{}
		b := newBed(t, func(o *Options) { o.Traits = storage.Traits{Batch: 64, Lanes: lanes} })
		b.store.mu.Lock()
		b.store.fail = func(batch storage.Batch) error {
			for _, r := range batch.Rows {
				seen[storage.Lane(r.Queue, lanes)]++
				if storage.Lane(r.Queue, lanes) != storage.Lane(batch.Rows[0].Queue, lanes) {
					t.Errorf("a batch holds queues of the lanes of %q and %q", batch.Rows[0].Queue, r.Queue)
				}
			}
			return nil
		}
		b.store.mu.Unlock()
		const members = 40
		to := make([]string, members)
		for i := range to {
			to[i] = fmt.Sprintf("d%d.1", i)
			b.acc.add(to[i], allCaps)
		}
		sender := b.connect("s.1", allCaps, 0)
		if err := sender.sendAs(1, 0, to, "to all", ccp.SendNoCopies); err != nil {
			t.Fatal(err)
		}
		settle()
		if len(seen) != lanes || seen[0]+seen[1]+seen[2]+seen[3] != members {
			t.Errorf("rows by lane: %v", seen)
		}
	})
}
