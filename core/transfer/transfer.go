package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// Side is one of the two storages of a copy.
type Side struct {
	Name   string
	Store  storage.Store
	Traits storage.Traits
}

// Options are a copy's.
type Options struct {
	// From is not written to, and nobody else may write to it during the copy.
	From Side
	// To is empty, or holds a copy from the same side that was interrupted.
	To Side
	// Reopen closes To.Store, which then is not used any more, and opens the target
	// once more: what is checked has been on the disk.
	Reopen func(ctx context.Context) (storage.Store, error)
	// Now is the time at which what has expired is left behind.
	Now time.Time
	// Progress may be nil.
	Progress *Progress
}

// Report says what a storage holds.
type Report struct {
	Counts
	Digest [32]byte
	// Resumed says that an interrupted copy was taken up.
	Resumed bool
}

// The record in a target that is not complete.
const (
	markerKind = "storage-copy"
	markerID   = "state"
)

var markerKey = storage.Key{Kind: markerKind, ID: markerID}

// marker is its value.
type marker struct {
	From string    `json:"from"`
	Now  time.Time `json:"now"`
	// After is the last queue of which everything is there.
	After []byte `json:"after,omitempty"`
}

// ErrNotEmpty answers a copy into a storage that holds something already.
var ErrNotEmpty = errors.New("it holds data already; copy into an empty one")

// Unfinished says from where a storage is being filled by a copy that has not come to
// its end; "" when it is complete.
func Unfinished(ctx context.Context, d storage.Directory, now time.Time) (from string, err error) {
	m, err := readMarker(ctx, d, now)
	if err != nil || m == nil {
		return "", err
	}
	return m.From, nil
}

func readMarker(ctx context.Context, d storage.Directory, now time.Time) (*marker, error) {
	r, err := d.Get(ctx, now, []storage.Key{markerKey})
	if err != nil {
		return nil, err
	}
	if len(r) != 1 || r[0].Version == 0 {
		return nil, nil //nolint:nilnil // there is none
	}
	m := new(marker)
	if err := json.Unmarshal(r[0].Value, m); err != nil {
		return nil, &sdk.Error{Kind: sdk.Corrupt, Text: "the record of the interrupted copy cannot be read; begin again with an empty storage", Err: err}
	}
	return m, nil
}

func (o *Options) complete() error {
	for _, s := range []Side{o.From, o.To} {
		switch {
		case s.Store.Queues == nil || s.Store.Directory == nil:
			return fmt.Errorf("storage %s keeps no messages and accounts", s.Name)
		case s.Store.Inventory == nil:
			return fmt.Errorf("storage %s cannot say what it holds; install a newer version of the plugin", s.Name)
		}
	}
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	// The precision of the marker, so that a copy taken up has the same time.
	o.Now = o.Now.UTC().Truncate(time.Microsecond)
	return nil
}

// Copy copies everything from one storage to the other and compares. An error leaves
// the target unfinished: the same call goes on with it, but for one that says that the
// two differ.
func Copy(ctx context.Context, o Options) (Report, error) {
	if err := o.complete(); err != nil {
		return Report{}, err
	}
	t := &target{Options: &o}
	resumed, err := t.begin(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("storage %s: %w", o.To.Name, err)
	}
	if err := t.ahead(ctx); err != nil {
		return Report{}, fmt.Errorf("storage %s: %w", o.From.Name, err)
	}
	w := &walk{
		store: o.From.Store, now: t.state.Now, to: t, progress: o.Progress,
		lanes: max(o.To.Traits.Lanes, 1), rows: max(o.To.Traits.Batch, 1),
	}
	if err := w.run(ctx); err != nil {
		return Report{}, err
	}
	rep := Report{w.counts, w.digest.sum(), resumed}
	if err := t.check(ctx, rep); err != nil {
		return rep, err
	}
	return rep, nil
}

// Digest counts and hashes what a storage holds at a time.
func Digest(ctx context.Context, s storage.Store, now time.Time, p *Progress) (Report, error) {
	if p == nil {
		p = new(Progress)
	}
	w := &walk{store: s, now: now, lanes: 4, progress: p}
	err := w.run(ctx)
	return Report{Counts: w.counts, Digest: w.digest.sum()}, err
}
