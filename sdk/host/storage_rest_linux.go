package host

import (
	"context"
	"time"

	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/storage"
)

// directory is storage.Directory in the other process.
type directory struct{ *store }

var _ storage.Directory = directory{}

func (d directory) Get(ctx context.Context, now time.Time, keys []storage.Key) ([]storage.Record, error) {
	for _, k := range keys {
		if err := k.Check(); err != nil {
			return nil, err
		}
	}
	if len(keys) == 0 {
		return nil, d.check(ctx)
	}
	const most = 2048
	var parts []*wirepb.StorageRequest
	for rest := keys; len(rest) > 0; {
		n := min(most, len(rest))
		parts = append(parts, &wirepb.StorageRequest{Now: wire.FromTime(now), Call: &wirepb.StorageRequest_Get{Get: wire.FromKeys(rest[:n])}})
		rest = rest[n:]
	}
	out, err := d.records(ctx, parts)
	if err == nil && len(out) != len(keys) {
		err = odd(len(keys), len(out))
	}
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Key = keys[i] // also where it is absent
	}
	return out, nil
}

func (d directory) List(ctx context.Context, now time.Time, r storage.Range) ([]storage.Record, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	out, err := d.records(ctx, one(now, &wirepb.StorageRequest{Call: &wirepb.StorageRequest_List{List: &wirepb.RangeCall{
		Kind: []byte(r.Kind), Prefix: []byte(r.Prefix), After: []byte(r.After), Limit: int64(r.Limit),
	}}}))
	if err == nil && len(out) > r.Limit {
		err = odd(r.Limit, len(out))
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (d directory) records(ctx context.Context, parts []*wirepb.StorageRequest) ([]storage.Record, error) {
	if err := d.check(ctx); err != nil {
		return nil, err
	}
	var out []storage.Record
	err := d.reads.Call(ctx, parts, func(r *wirepb.StorageReply) error {
		for _, one := range r.GetRecords().GetRecords() {
			record, err := wire.ToRecord(one)
			if err != nil {
				return err
			}
			out = append(out, record)
		}
		return nil
	})
	return out, err
}

func (d directory) Commit(ctx context.Context, now time.Time, w []storage.Write) error {
	if err := storage.CheckWrites(w); err != nil {
		return err
	}
	var parts []*wirepb.StorageRequest
	var part *wirepb.Writes
	size := 0
	for i := range w {
		if part == nil || size+len(w[i].Value) > wire.PartBytes {
			part, size = &wirepb.Writes{}, 0
			parts = append(parts, &wirepb.StorageRequest{Now: wire.FromTime(now), Call: &wirepb.StorageRequest_Commit{Commit: part}})
		}
		part.Writes = append(part.Writes, wire.FromWrite(&w[i]))
		size += len(w[i].Value) + len(w[i].ID) + 64
	}
	if parts == nil {
		return d.check(ctx)
	}
	return d.do(ctx, d.writes, parts)
}

func (d directory) Purge(ctx context.Context, now time.Time, limit int) (int, error) {
	n, err := d.numbers(ctx, d.writes, 1, one(now, &wirepb.StorageRequest{
		Call: &wirepb.StorageRequest_PurgeRecords{PurgeRecords: &wirepb.PurgeCall{Limit: int64(limit)}},
	}))
	if err != nil {
		return 0, err
	}
	return int(min(n[0], uint64(max(limit, 0)))), nil
}

// routes is storage.Routes in the other process.
type routes struct{ *store }

func (r routes) Claim(ctx context.Context, now time.Time, c []storage.Claim) ([]uint64, error) {
	m := &wirepb.Claims{}
	for _, one := range c {
		m.Claims = append(m.Claims, &wirepb.RouteClaim{Device: []byte(one.Device), Node: []byte(one.Node), Session: []byte(one.Session), Ttl: int64(one.TTL)})
	}
	return r.numbers(ctx, r.volatile, len(c), one(now, &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Claim{Claim: m}}))
}

func (r routes) Renew(ctx context.Context, now time.Time, in []storage.Renewal) ([]bool, error) {
	m := &wirepb.Renewals{}
	for _, one := range in {
		m.Renewals = append(m.Renewals, &wirepb.RouteRenewal{
			Device: []byte(one.Device), Session: []byte(one.Session), Node: []byte(one.Node), Fence: one.Fence, Ttl: int64(one.TTL),
		})
	}
	n, err := r.numbers(ctx, r.volatile, len(in), one(now, &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Renew{Renew: m}}))
	if err != nil {
		return nil, err
	}
	out := make([]bool, len(n))
	for i := range n {
		out[i] = n[i] != 0
	}
	return out, nil
}

func (r routes) Lookup(ctx context.Context, now time.Time, devices []string) ([]storage.Route, error) {
	if err := r.check(ctx); err != nil {
		return nil, err
	}
	out := make([]storage.Route, 0, len(devices))
	err := r.volatile.Call(ctx, timed(now, names(devices, func(n *wirepb.Names) *wirepb.StorageRequest {
		return &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Lookup{Lookup: n}}
	})), func(reply *wirepb.StorageReply) error {
		for _, one := range reply.GetRoutes().GetRoutes() {
			out = append(out, storage.Route{Device: string(one.Device), Node: string(one.Node), Session: string(one.Session), Fence: one.Fence})
		}
		return nil
	})
	if err == nil && len(out) != len(devices) {
		err = odd(len(devices), len(out))
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// timed sets the clock of a call.
func timed(now time.Time, parts []*wirepb.StorageRequest) []*wirepb.StorageRequest {
	for _, p := range parts {
		p.Now = wire.FromTime(now)
	}
	return parts
}

// presence is storage.Presence in the other process.
type presence struct{ *store }

func (p presence) Announce(ctx context.Context, now time.Time, b []storage.Beat) error {
	var parts []*wirepb.StorageRequest
	var part *wirepb.Beats
	size := 0
	for i := range b {
		if err := storage.CheckBeat(&b[i]); err != nil {
			return err
		}
		if part == nil || size > wire.PartBytes {
			part, size = &wirepb.Beats{}, 0
			parts = append(parts, &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Announce{Announce: part}})
		}
		part.Beats = append(part.Beats, wire.FromBeat(&b[i]))
		size += len(b[i].User) + len(b[i].Device) + 128
	}
	if parts == nil {
		return p.check(ctx)
	}
	return p.do(ctx, p.volatile, timed(now, parts))
}

func (p presence) Beats(ctx context.Context, now time.Time, devices []string) ([]storage.Beat, error) {
	if err := p.check(ctx); err != nil {
		return nil, err
	}
	out := make([]storage.Beat, 0, len(devices))
	err := p.volatile.Call(ctx, timed(now, names(devices, func(n *wirepb.Names) *wirepb.StorageRequest {
		return &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Beats{Beats: n}}
	})), func(r *wirepb.StorageReply) error {
		for _, one := range r.GetBeats().GetBeats() {
			b := wire.ToBeat(one)
			if err := storage.CheckBeat(&b); err != nil {
				return err
			}
			out = append(out, b)
		}
		return nil
	})
	if err == nil && len(out) != len(devices) {
		err = odd(len(devices), len(out))
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// cache is storage.Cache in the other process.
type cache struct{ *store }

func (c cache) Put(ctx context.Context, now time.Time, key string, value []byte, ttl time.Duration) error {
	if len(key)+len(value) > storage.MaxPayload {
		return tooLong("value")
	}
	return c.do(ctx, c.volatile, one(now, &wirepb.StorageRequest{Call: &wirepb.StorageRequest_CachePut{CachePut: &wirepb.CachePut{
		Key: []byte(key), Value: value, Ttl: int64(ttl),
	}}}))
}

func (c cache) get(ctx context.Context, now time.Time, key string, call func(*wirepb.Names) *wirepb.StorageRequest) ([]byte, error) {
	out, err := c.values(ctx, c.volatile, 1, timed(now, names([]string{key}, call)))
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

func (c cache) Get(ctx context.Context, now time.Time, key string) ([]byte, error) {
	return c.get(ctx, now, key, func(n *wirepb.Names) *wirepb.StorageRequest {
		return &wirepb.StorageRequest{Call: &wirepb.StorageRequest_CacheGet{CacheGet: n}}
	})
}

func (c cache) Take(ctx context.Context, now time.Time, key string) ([]byte, error) {
	return c.get(ctx, now, key, func(n *wirepb.Names) *wirepb.StorageRequest {
		return &wirepb.StorageRequest{Call: &wirepb.StorageRequest_CacheTake{CacheTake: n}}
	})
}

func (c cache) Delete(ctx context.Context, keys ...string) error {
	return c.do(ctx, c.volatile, names(keys, func(n *wirepb.Names) *wirepb.StorageRequest {
		return &wirepb.StorageRequest{Call: &wirepb.StorageRequest_CacheDelete{CacheDelete: n}}
	}))
}

// limiter is storage.Limiter in the other process.
type limiter struct{ *store }

func (l limiter) Take(ctx context.Context, now time.Time, key string, r storage.Rate, n uint32) (time.Duration, error) {
	wait, err := l.numbers(ctx, l.volatile, 1, one(now, &wirepb.StorageRequest{Call: &wirepb.StorageRequest_Take{Take: &wirepb.TakeCall{
		Key: []byte(key), Burst: r.Burst, Per: int64(r.Per), Tokens: n,
	}}}))
	if err != nil {
		return 0, err
	}
	return max(0, time.Duration(wait[0])), nil
}
