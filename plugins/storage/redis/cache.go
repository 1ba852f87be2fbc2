package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/commucat/commucat/sdk/storage"
)

const cacheKey = "commucat:cache:"

// cache implements storage.Cache.
type cache store

var _ storage.Cache = (*cache)(nil)

func (c *cache) key(key string) string { return (*store)(c).key(cacheKey, key) }

// Put implements storage.Cache.
func (c *cache) Put(ctx context.Context, now time.Time, key string, value []byte, ttl time.Duration) error {
	ctx, cancel := (*store)(c).within(ctx)
	defer cancel()
	now = (*store)(c).clock.server(now)
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(value)), uint64(now.Add(ttl).UnixMicro()))
	return plain("put", c.db.Set(ctx, c.key(key), append(b, value...), life(ttl)).Err())
}

// Get implements storage.Cache.
func (c *cache) Get(ctx context.Context, now time.Time, key string) ([]byte, error) {
	ctx, cancel := (*store)(c).within(ctx)
	defer cancel()
	now = (*store)(c).clock.server(now)
	return valueOf(now, c.db.Get(ctx, c.key(key)))
}

// Take implements storage.Cache.
func (c *cache) Take(ctx context.Context, now time.Time, key string) ([]byte, error) {
	ctx, cancel := (*store)(c).within(ctx)
	defer cancel()
	now = (*store)(c).clock.server(now)
	return valueOf(now, c.db.GetDel(ctx, c.key(key)))
}

// valueOf takes the end off a value; nil when it is over.
func valueOf(now time.Time, a *redis.StringCmd) ([]byte, error) {
	b, err := a.Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case err != nil:
		return nil, plain("get", err)
	case len(b) < 8 || now.UnixMicro() >= int64(binary.BigEndian.Uint64(b)):
		return nil, nil
	}
	return b[8:], nil
}

// Delete implements storage.Cache.
func (c *cache) Delete(ctx context.Context, keys ...string) error {
	ctx, cancel := (*store)(c).within(ctx)
	defer cancel()
	_, err := c.db.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, k := range keys {
			p.Unlink(ctx, c.key(k))
		}
		return nil
	})
	return plain("delete", err)
}
