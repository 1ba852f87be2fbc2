package accounttest

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

// Directory is a storage.Directory in memory. The zero value is ready.
type Directory struct {
	mu      sync.Mutex
	version uint64
	records map[storage.Key]storage.Record
	commits int

	// Fail, when set, is asked before each call ("get", "list", "commit") and
	// its error returned.
	Fail func(op string) error
	// BeforeCommit, when set, runs before a Commit is judged, outside of the lock:
	// a test makes another writer win there.
	BeforeCommit func()
}

func (d *Directory) fail(op string) error {
	if d.Fail == nil {
		return nil
	}
	return d.Fail(op)
}

func (d *Directory) live(k storage.Key, now time.Time) storage.Record {
	r, ok := d.records[k]
	if !ok || (!r.Expires.IsZero() && !r.Expires.After(now)) {
		return storage.Record{Key: k}
	}
	r.Value = append([]byte{}, r.Value...)
	return r
}

// Get implements storage.Directory.
func (d *Directory) Get(_ context.Context, now time.Time, keys []storage.Key) ([]storage.Record, error) {
	if err := d.fail("get"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]storage.Record, len(keys))
	for i, k := range keys {
		if k.ID == "" || len(k.ID) > 512 || k.Kind == "" {
			return nil, fmt.Errorf("accounttest: bad key of kind %q", k.Kind)
		}
		out[i] = d.live(k, now)
	}
	return out, nil
}

// List implements storage.Directory.
func (d *Directory) List(_ context.Context, now time.Time, r storage.Range) ([]storage.Record, error) {
	if err := d.fail("list"); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []storage.Record
	for k := range d.records {
		if k.Kind != r.Kind || !strings.HasPrefix(k.ID, r.Prefix) || k.ID <= r.After {
			continue
		}
		if rec := d.live(k, now); rec.Version != 0 {
			out = append(out, rec)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	if r.Limit > 0 && len(out) > r.Limit {
		out = out[:r.Limit]
	}
	return out, nil
}

// Commit implements storage.Directory.
func (d *Directory) Commit(_ context.Context, now time.Time, w []storage.Write) error {
	if err := d.fail("commit"); err != nil {
		return err
	}
	if d.BeforeCommit != nil {
		d.BeforeCommit()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := make(map[storage.Key]bool, len(w))
	for i, x := range w {
		if seen[x.Key] {
			return fmt.Errorf("accounttest: two writes of one %s record", x.Kind)
		}
		seen[x.Key] = true
		if v := d.live(x.Key, now).Version; x.Expect != storage.AnyVersion && x.Expect != v {
			return &storage.ConflictError{Key: x.Key, Index: i, Version: v}
		}
	}
	if d.records == nil {
		d.records = make(map[storage.Key]storage.Record)
	}
	d.commits++
	for _, x := range w {
		switch {
		case x.CheckOnly:
		case x.Value == nil:
			delete(d.records, x.Key)
		default:
			d.version++
			d.records[x.Key] = storage.Record{Key: x.Key, Version: d.version, Value: append([]byte{}, x.Value...), Expires: x.Expires}
		}
	}
	return nil
}

// Purge implements storage.Directory.
func (d *Directory) Purge(_ context.Context, now time.Time, limit int) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for k, r := range d.records {
		if n < limit && !r.Expires.IsZero() && !r.Expires.After(now) {
			delete(d.records, k)
			n++
		}
	}
	return n, nil
}

// Commits is the number of Commits that took effect.
func (d *Directory) Commits() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.commits
}

// Dump is everything stored, as text in a fixed order.
func (d *Directory) Dump() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	lines := make([]string, 0, len(d.records))
	for k, r := range d.records {
		lines = append(lines, fmt.Sprintf("%s %q v%d %s %s", k.Kind, k.ID, r.Version, r.Expires.Format(time.RFC3339Nano), r.Value))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// Count is the number of records of a kind.
func (d *Directory) Count(kind string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for k := range d.records {
		if k.Kind == kind {
			n++
		}
	}
	return n
}

var _ storage.Directory = (*Directory)(nil)
