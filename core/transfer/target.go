package transfer

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/commucat/commucat/sdk/storage"
)

// target writes what a walk finds.
type target struct {
	*Options
	state marker
	// skip is up to where an interrupted copy came.
	skip string
	// highest is at or above every position of the source; 0 when that cannot say.
	highest uint64
}

// begin finds the target empty and marks it, or takes up an interrupted copy.
func (t *target) begin(ctx context.Context) (resumed bool, err error) {
	m, err := readMarker(ctx, t.To.Store.Directory, t.Now)
	switch {
	case err != nil:
		return false, err
	case m == nil:
		if err := t.empty(ctx); err != nil {
			return false, err
		}
		t.state = marker{From: t.From.Name, Now: t.Now}
		return false, t.save(ctx)
	case m.From != t.From.Name:
		return false, fmt.Errorf("it holds the beginning of a copy from %s; finish that one, or begin with an empty storage", m.From)
	}
	t.state, t.skip = *m, string(m.After)
	return true, nil
}

func (t *target) empty(ctx context.Context) error {
	i := t.To.Store.Inventory
	for _, ask := range []func(context.Context, string, int) ([]string, error){i.Kinds, i.Queues, i.Marks} {
		names, err := ask(ctx, "", 1)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return ErrNotEmpty
		}
	}
	return nil
}

func (t *target) save(ctx context.Context) error {
	b, err := json.Marshal(t.state)
	if err != nil {
		return err
	}
	return t.commit(ctx, []storage.Write{{Key: markerKey, Expect: storage.AnyVersion, Value: b}})
}

func (t *target) commit(ctx context.Context, w []storage.Write) error {
	return patiently(ctx, func() error { return t.To.Store.Directory.Commit(ctx, t.Now, w) })
}

func (t *target) records(ctx context.Context, r []storage.Record) error {
	w := make([]storage.Write, len(r))
	for i := range r {
		w[i] = storage.Write{Key: r[i].Key, Expect: storage.AnyVersion, Value: r[i].Value, Expires: r[i].Expires}
	}
	return t.failed(t.commit(ctx, w))
}

func (t *target) marks(ctx context.Context, m []storage.Mark) error {
	return t.failed(patiently(ctx, func() error {
		_, err := t.To.Store.Queues.Append(ctx, t.state.Now, storage.Batch{Marks: m})
		return err
	}))
}

func (t *target) wants(queue string) bool { return queue > t.skip }

func (t *target) rows(ctx context.Context, b *batch) error {
	var out []storage.Appended
	err := patiently(ctx, func() (err error) {
		out, err = t.To.Store.Queues.Append(ctx, t.Now, storage.Batch{Rows: b.append})
		return err
	})
	if err == nil && len(out) != len(b.append) {
		err = fmt.Errorf("%d answers for %d rows", len(out), len(b.append))
	}
	if err != nil {
		return t.failed(err)
	}
	for i, r := range out {
		if r.Err != nil {
			return t.failed(fmt.Errorf("a message of queue %q was refused: %w", b.append[i].Queue, r.Err))
		}
		// A device that has confirmed up to its last position would never see a row
		// below.
		if r.Position <= b.at[i] {
			return t.failed(fmt.Errorf("it gives position %d to a message that had %d in %s: the clock of one of them is wrong; set it right and begin with an empty storage",
				r.Position, b.at[i], t.From.Name))
		}
	}
	return nil
}

func (t *target) reached(ctx context.Context, queue string) error {
	if queue <= t.skip {
		return nil
	}
	t.state.After = []byte(queue)
	return t.failed(t.save(ctx))
}

func (t *target) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("storage %s: %w", t.To.Name, err)
}

// check reads the target, opened once more, and compares. A source that others may
// have written to is read again as well.
func (t *target) check(ctx context.Context, want Report) error {
	t.Progress.reset()
	t.Progress.checking.Store(true)
	store, err := t.Reopen(ctx)
	if err != nil {
		return t.failed(err)
	}
	t.To.Store = store
	if m, err := readMarker(ctx, store.Directory, t.Now); err != nil || m == nil {
		if err == nil {
			err = fmt.Errorf("it has forgotten what was copied into it")
		}
		return t.failed(err)
	}
	if p := store.Positions; p != nil {
		if n, err := p.Highest(ctx); err != nil || n < t.highest {
			if err == nil {
				err = fmt.Errorf("it has given positions up to %d, below %d of %s", n, t.highest, t.From.Name)
			}
			return t.failed(err)
		}
	}
	got, err := Digest(ctx, store, t.state.Now, t.Progress)
	if err != nil {
		return t.failed(err)
	}
	if err := same(t.To.Name, got, want); err != nil {
		return err
	}
	if t.From.Traits.Shared {
		again, err := Digest(ctx, t.From.Store, t.state.Now, new(Progress))
		if err != nil {
			return fmt.Errorf("storage %s: %w", t.From.Name, err)
		}
		if err := same(t.From.Name+", read again,", again, want); err != nil {
			return fmt.Errorf("%w: stop every relay that uses it", err)
		}
	}
	return t.failed(t.commit(ctx, []storage.Write{{Key: markerKey, Expect: storage.AnyVersion}}))
}

// same says in what two reports differ.
func same(name string, got, want Report) error {
	anew := "begin with an empty storage"
	if want.Resumed { // what had been copied by then is not looked at again
		anew = "the copy was taken up where it was interrupted, and if a relay has used the source in between, that is why: " + anew
	}
	if got.Counts != want.Counts {
		g, w := got.Counts, want.Counts
		return fmt.Errorf("%s has %d records, %d marks and %d messages (%d bytes) in %d queues, not %d, %d and %d (%d bytes) in %d; %s",
			name, g.Records, g.Marks, g.Messages, g.Bytes, g.Queues, w.Records, w.Marks, w.Messages, w.Bytes, w.Queues, anew)
	}
	if got.Digest != want.Digest {
		return fmt.Errorf("%s has the digest %x, not %x; %s", name, got.Digest, want.Digest, anew)
	}
	return nil
}
