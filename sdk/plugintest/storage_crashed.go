package plugintest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// appender fills one queue and knows what must be in it.
type appender struct {
	queue   string
	rows    []storage.Append // acknowledged, in order
	pending []storage.Append // sent, and nothing is known of them
	next    int
}

// fill appends batches until the store is gone.
func (a *appender) fill(t T, s storage.Store, acked *atomic.Int64) {
	for {
		if a.pending == nil {
			a.pending = messages(a.queue, a.next, 20)
			a.next += len(a.pending)
		}
		out, err := s.Queues.Append(t.Context(), epoch, storage.Batch{Rows: a.pending})
		if err != nil {
			if !errors.Is(err, sdk.Unavailable) {
				t.Errorf("%s: a store that was killed answers %v, want kind unavailable", a.queue, err)
			}
			return
		}
		for _, r := range out {
			if r.Err != nil {
				t.Errorf("%s: %v", a.queue, r.Err)
				return
			}
		}
		a.rows, a.pending = append(a.rows, a.pending...), nil
		acked.Add(1)
	}
}

// queuesCrashed kills the process that holds the store while several callers append,
// opens the store again and repeats what had no answer: nothing that was acknowledged
// is lost, nothing is there twice, and the order stays.
func queuesCrashed(t T, k *storageKit) {
	if k.o.Crash == nil {
		t.Skip("the store lives in this process")
	}
	dir := folder(t)
	appenders := make([]*appender, 6)
	for i := range appenders {
		appenders[i] = &appender{queue: fmt.Sprintf("queue %d", i)}
	}
	for round := range 4 {
		s := k.at(t, dir)
		for _, a := range appenders {
			if a.pending != nil {
				put(t, s, a.pending...)
				a.rows, a.pending = append(a.rows, a.pending...), nil
			}
			check(t, s, a.queue, a.rows...)
		}
		var acked atomic.Int64
		var group sync.WaitGroup
		for _, a := range appenders {
			group.Go(func() { a.fill(t, s, &acked) })
		}
		for until := time.Now().Add(patience); acked.Load() < int64(20+10*round) && time.Now().Before(until); {
			time.Sleep(time.Millisecond)
		}
		k.o.Crash(t)
		group.Wait()
		if t.Failed() {
			return
		}
	}
	s := k.at(t, dir)
	for _, a := range appenders {
		if a.pending != nil {
			put(t, s, a.pending...)
			a.rows = append(a.rows, a.pending...)
		}
		check(t, s, a.queue, a.rows...)
		t.Logf("%s: %d rows", a.queue, len(a.rows))
	}
}
