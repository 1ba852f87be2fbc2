package memory

import (
	"context"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// memory of released and ended routes, so that an older claim cannot return.
const tombstone = 10 * time.Minute

type routes struct {
	mu    sync.Mutex
	table table[storage.Route]
	// floor is the highest fence that was ever forgotten.
	floor uint64
}

func newRoutes(limit int) *routes {
	r := &routes{}
	r.table = newTable(limit, func(_ string, v storage.Route) { r.floor = max(r.floor, v.Fence) })
	return r
}

// Rows stay a tombstone's time longer than the route; until is where the route
// itself ends. A released route has no session.
func until(r row[storage.Route]) time.Time { return r.ends.Add(-tombstone) }

func (r *routes) Claim(_ context.Context, now time.Time, c []storage.Claim) ([]uint64, error) {
	out := make([]uint64, len(c))
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, c := range c {
		last := r.floor
		if old, ok := r.table.rows[c.Device]; ok {
			last = old.value.Fence
		}
		out[i] = max(last+1, uint64(max(now.UnixMilli(), 0)))
		r.table.put(now, c.Device, storage.Route{Device: c.Device, Node: c.Node, Session: c.Session, Fence: out[i]},
			now.Add(c.TTL+tombstone))
	}
	return out, nil
}

func (r *routes) Renew(_ context.Context, now time.Time, renewals []storage.Renewal) ([]bool, error) {
	out := make([]bool, len(renewals))
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, n := range renewals {
		old, there := r.table.rows[n.Device]
		if there && (old.value.Fence > n.Fence ||
			old.value.Fence == n.Fence && old.value.Session != n.Session) {
			continue
		}
		if !there && n.TTL <= 0 {
			r.floor = max(r.floor, n.Fence)
			out[i] = true
			continue
		}
		v := storage.Route{Device: n.Device, Node: n.Node, Session: n.Session, Fence: n.Fence}
		if v.Node == "" {
			v.Node = old.value.Node
		}
		if n.TTL <= 0 {
			v.Session = ""
		}
		r.table.put(now, n.Device, v, now.Add(max(n.TTL, 0)+tombstone))
		out[i] = true
	}
	return out, nil
}

func (r *routes) Lookup(_ context.Context, now time.Time, devices []string) ([]storage.Route, error) {
	out := make([]storage.Route, len(devices))
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, d := range devices {
		out[i].Device = d
		if row, ok := r.table.rows[d]; ok && row.value.Session != "" && now.Before(until(row)) {
			out[i] = row.value
		}
	}
	return out, nil
}

type presence struct {
	mu    sync.Mutex
	table table[storage.Beat]
}

func newPresence(limit int) *presence { return &presence{table: newTable[storage.Beat](limit, nil)} }

func (p *presence) Announce(_ context.Context, now time.Time, beats []storage.Beat) error {
	for i := range beats {
		if err := storage.CheckBeat(&beats[i]); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range beats {
		b.User = append([]byte(nil), b.User...)
		p.table.put(now, b.Device, b, now.Add(b.TTL))
	}
	return nil
}

func (p *presence) Beats(_ context.Context, now time.Time, devices []string) ([]storage.Beat, error) {
	out := make([]storage.Beat, len(devices))
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, d := range devices {
		if b, ok := p.table.get(now, d); ok {
			b.User = append([]byte(nil), b.User...)
			b.TTL = p.table.rows[d].ends.Sub(now)
			out[i] = b
		} else {
			out[i].Device = d
		}
	}
	return out, nil
}

type cache struct {
	mu          sync.Mutex
	table       table[[]byte]
	bytes, size int64
}

func newCache(limit int, size int64) *cache {
	c := &cache{size: size}
	c.table = newTable(limit, func(k string, v []byte) { c.bytes -= int64(len(k) + len(v)) })
	return c
}

func (c *cache) drop(key string) {
	if r, ok := c.table.rows[key]; ok {
		c.bytes -= int64(len(key) + len(r.value))
		delete(c.table.rows, key)
	}
}

func (c *cache) Put(_ context.Context, now time.Time, key string, value []byte, ttl time.Duration) error {
	n := int64(len(key) + len(value))
	if n > c.size {
		return &storage.Error{Kind: sdk.Invalid, Text: "value larger than the cache"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(key)
	for c.bytes+n > c.size && c.table.evict(now) {
	}
	c.bytes += n
	c.table.put(now, key, append([]byte{}, value...), now.Add(ttl))
	return nil
}

func (c *cache) Get(_ context.Context, now time.Time, key string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.table.get(now, key); ok {
		return append([]byte{}, v...), nil
	}
	return nil, nil
}

func (c *cache) Take(_ context.Context, now time.Time, key string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.table.get(now, key)
	c.drop(key)
	if !ok {
		return nil, nil
	}
	return v, nil
}

func (c *cache) Delete(_ context.Context, keys ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range keys {
		c.drop(k)
	}
	return nil
}
