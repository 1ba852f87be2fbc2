package transfer

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

const (
	queuePage  = 1024 // names of queues at once
	markPage   = 128
	recordPage = 128
	rowPage    = 1024
	rowBytes   = 4 << 20
)

// Counts say how much there is, or how far it has come.
type Counts struct {
	Records  uint64 `json:"records"`
	Marks    uint64 `json:"marks"`
	Queues   uint64 `json:"queues"`
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
}

// Progress is read by others while a copy runs. The zero value is ready.
type Progress struct {
	records, marks, queues, messages, bytes, all atomic.Uint64
	checking                                     atomic.Bool
}

// Counts are what has been gone through.
func (p *Progress) Counts() Counts {
	return Counts{p.records.Load(), p.marks.Load(), p.queues.Load(), p.messages.Load(), p.bytes.Load()}
}

// Queues is how many queues there are to go through.
func (p *Progress) Queues() uint64 { return p.all.Load() }

// Checking says that the target is being read.
func (p *Progress) Checking() bool { return p.checking.Load() }

func (p *Progress) reset() {
	for _, n := range []*atomic.Uint64{&p.records, &p.marks, &p.queues, &p.messages, &p.bytes} {
		n.Store(0)
	}
}

// sink takes what a walk finds.
type sink interface {
	records(ctx context.Context, r []storage.Record) error
	marks(ctx context.Context, m []storage.Mark) error
	// wants says whether the rows of a queue are to be given to rows.
	wants(queue string) bool
	// rows is called for each lane by one goroutine; at are the positions of its rows.
	rows(ctx context.Context, b *batch) error
	// reached is called when all queues up to a name have been given.
	reached(ctx context.Context, queue string) error
}

// batch are rows of one lane, in order.
type batch struct {
	append []storage.Append
	at     []uint64
	bytes  int
}

// walk goes through everything that a store holds at a time.
type walk struct {
	store    storage.Store
	now      time.Time
	to       sink // nil: only counted and hashed
	lanes    int
	rows     int // of a batch
	progress *Progress

	digest digest
	counts Counts
}

func (w *walk) run(ctx context.Context) error {
	w.digest = newDigest()
	for _, part := range []func(context.Context) error{w.allRecords, w.allMarks, w.allQueues} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) allRecords(ctx context.Context) error {
	return pages(ctx, w.store.Inventory.Kinds, 64, func(kinds []string) error {
		for _, kind := range kinds {
			if kind == markerKind {
				continue
			}
			if err := w.kind(ctx, kind); err != nil {
				return err
			}
		}
		return nil
	})
}

func (w *walk) kind(ctx context.Context, kind string) error {
	for after := ""; ; {
		var page []storage.Record
		err := patiently(ctx, func() (err error) {
			page, err = w.store.Directory.List(ctx, w.now, storage.Range{Kind: kind, After: after, Limit: recordPage})
			return err
		})
		if err != nil || len(page) == 0 {
			return err
		}
		for i := range page {
			w.digest.record(&page[i])
		}
		if w.to != nil {
			if err := w.to.records(ctx, page); err != nil {
				return err
			}
		}
		w.counts.Records += uint64(len(page))
		w.progress.records.Add(uint64(len(page)))
		after = page[len(page)-1].ID
	}
}

func (w *walk) allMarks(ctx context.Context) error {
	return pages(ctx, w.store.Inventory.Marks, markPage, func(keys []string) error {
		var values [][]byte
		err := patiently(ctx, func() (err error) { values, err = w.store.Queues.Marks(ctx, keys); return err })
		if err != nil {
			return err
		}
		marks := make([]storage.Mark, 0, len(keys))
		for i, v := range values {
			if v == nil {
				continue
			}
			m := storage.Mark{Key: keys[i], Value: v}
			w.digest.mark(&m)
			marks = append(marks, m)
		}
		w.counts.Marks += uint64(len(marks))
		w.progress.marks.Add(uint64(len(marks)))
		if w.to == nil || len(marks) == 0 {
			return nil
		}
		return w.to.marks(ctx, marks)
	})
}

// found is what a queue holds.
type found struct {
	rows, bytes uint64
	sum         [32]byte
}

func (w *walk) allQueues(ctx context.Context) error {
	return pages(ctx, w.store.Inventory.Queues, queuePage, func(names []string) error {
		all := make([]found, len(names))
		if err := w.sideBySide(ctx, names, all); err != nil {
			return err
		}
		for i, f := range all {
			if f.rows == 0 {
				continue
			}
			w.digest.queue(names[i], f.rows, f.sum)
			w.counts.Queues++
			w.counts.Messages += f.rows
			w.counts.Bytes += f.bytes
		}
		w.progress.queues.Add(uint64(len(names)))
		if w.to == nil {
			return nil
		}
		return w.to.reached(ctx, names[len(names)-1])
	})
}

// sideBySide goes through queues, each lane's one after another. A lane reads ahead of
// what is being written by a batch or two.
func (w *walk) sideBySide(ctx context.Context, names []string, all []found) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	try := func(f func() error) {
		group.Go(func() {
			if err := f(); err != nil {
				cancel(err)
			}
		})
	}
	for lane := range w.lanes {
		out := make(chan *batch, 1)
		try(func() error {
			defer close(out)
			r := &reader{walk: w, out: out}
			for i, name := range names {
				if storage.Lane(name, w.lanes) != lane {
					continue
				}
				if err := r.queue(ctx, name, &all[i]); err != nil {
					return err
				}
			}
			return r.flush(ctx)
		})
		try(func() error {
			for b := range out {
				if err := w.to.rows(ctx, b); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// reader reads the queues of one lane.
type reader struct {
	*walk
	out  chan<- *batch
	next *batch
}

func (r *reader) queue(ctx context.Context, name string, f *found) error {
	d := newDigest()
	give := r.to != nil && r.to.wants(name)
	for after := uint64(0); ; {
		var page []storage.Envelope
		err := patiently(ctx, func() (err error) {
			page, err = r.store.Queues.Read(ctx, r.now, name, after, storage.Page{Messages: rowPage, Bytes: rowBytes})
			return err
		})
		if err != nil {
			return err
		}
		if len(page) == 0 {
			f.sum = d.sum()
			return nil
		}
		size := uint64(0)
		for i := range page {
			e := &page[i]
			d.message(e)
			size += uint64(len(e.Payload))
			if give {
				if err := r.add(ctx, name, e); err != nil {
					return err
				}
			}
		}
		f.rows, f.bytes = f.rows+uint64(len(page)), f.bytes+size
		r.progress.messages.Add(uint64(len(page)))
		r.progress.bytes.Add(size)
		after = page[len(page)-1].Position
	}
}

func (r *reader) add(ctx context.Context, queue string, e *storage.Envelope) error {
	if r.next == nil {
		r.next = &batch{append: make([]storage.Append, 0, r.walk.rows), at: make([]uint64, 0, r.walk.rows)}
	}
	b := r.next
	b.append = append(b.append, storage.Append{Queue: queue, ID: e.ID, Payload: e.Payload, Expires: e.Expires})
	b.at = append(b.at, e.Position)
	b.bytes += len(e.Payload)
	if len(b.append) < r.walk.rows && b.bytes < rowBytes {
		return nil
	}
	return r.flush(ctx)
}

func (r *reader) flush(ctx context.Context) error {
	if r.next == nil {
		return nil
	}
	select {
	case r.out <- r.next:
		r.next = nil
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pages goes through an inventory.
func pages(ctx context.Context, ask func(context.Context, string, int) ([]string, error), limit int, f func([]string) error) error {
	for after := ""; ; {
		var names []string
		err := patiently(ctx, func() (err error) { names, err = ask(ctx, after, limit); return err })
		if err != nil || len(names) == 0 {
			return err
		}
		if err := f(names); err != nil {
			return err
		}
		after = names[len(names)-1]
	}
}

const (
	firstPause = 100 * time.Millisecond
	tries      = 8 // pauses of 25 s in all
)

// patiently repeats a call while its backend is away: it may be starting again. All
// calls of a copy have the same effect however often they are made.
func patiently(ctx context.Context, f func() error) error {
	pause := firstPause
	for i := 1; ; i++ {
		err := f()
		if !errors.Is(err, sdk.Unavailable) || i == tries || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
