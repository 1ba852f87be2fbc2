package memory

import (
	"context"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

type directory struct {
	mu      sync.Mutex
	records map[storage.Key]storage.Record
	version uint64
}

func newDirectory() *directory {
	return &directory{records: make(map[storage.Key]storage.Record)}
}

// live gives a record, or one of version 0 where it is absent or expired.
func (d *directory) live(now time.Time, k storage.Key) storage.Record {
	r, ok := d.records[k]
	if !ok || expired(now, &r) {
		return storage.Record{Key: k}
	}
	return r
}

func expired(now time.Time, r *storage.Record) bool {
	return !r.Expires.IsZero() && !now.Before(r.Expires)
}

func (d *directory) Get(_ context.Context, now time.Time, keys []storage.Key) ([]storage.Record, error) {
	out := make([]storage.Record, len(keys))
	for _, k := range keys {
		if err := k.Check(); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, k := range keys {
		out[i] = copied(d.live(now, k))
	}
	return out, nil
}

func copied(r storage.Record) storage.Record {
	if r.Value != nil {
		r.Value = append([]byte{}, r.Value...)
	}
	return r
}

func (d *directory) List(_ context.Context, now time.Time, r storage.Range) ([]storage.Record, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []storage.Record
	for k, rec := range d.records {
		if k.Kind == r.Kind && strings.HasPrefix(k.ID, r.Prefix) && k.ID > r.After && !expired(now, &rec) {
			out = append(out, rec)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	out = out[:min(len(out), r.Limit)]
	for i := range out {
		out[i] = copied(out[i])
	}
	return out, nil
}

func (d *directory) Commit(_ context.Context, now time.Time, w []storage.Write) error {
	if err := storage.CheckWrites(w); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range w {
		have := d.live(now, w[i].Key).Version
		if w[i].Expect != storage.AnyVersion && w[i].Expect != have {
			return &storage.ConflictError{Key: w[i].Key, Index: i, Version: have}
		}
	}
	d.version++
	for _, w := range w {
		switch {
		case w.CheckOnly:
		case w.Value == nil:
			delete(d.records, w.Key)
		default:
			d.records[w.Key] = storage.Record{
				Key: w.Key, Version: d.version, Value: append([]byte{}, w.Value...), Expires: w.Expires,
			}
		}
	}
	return nil
}

func (d *directory) Purge(_ context.Context, now time.Time, limit int) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for k, r := range d.records {
		if n == limit {
			break
		}
		if expired(now, &r) {
			delete(d.records, k)
			n++
		}
	}
	return n, nil
}
