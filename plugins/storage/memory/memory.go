package memory

import (
	"context"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/storage"
)

// Config bounds the store. A zero bound means the default.
type Config struct {
	Routes   int      `cfg:"routes" default:"100000" min:"1" doc:"connected devices that are remembered"`
	Beats    int      `cfg:"presence" default:"100000" min:"1" doc:"devices whose presence is remembered"`
	Values   int      `cfg:"cache_values" default:"65536" min:"1" doc:"values in the cache"`
	Cached   sdk.Size `cfg:"cache_size" default:"32MiB" min:"64KiB" doc:"bytes in the cache"`
	Buckets  int      `cfg:"limits" default:"65536" min:"1" doc:"rate limits that are remembered"`
	Backlog  int      `cfg:"backlog" default:"1024" min:"1" doc:"messages that wait for one subscriber of the bus"`
	Messages bool     `cfg:"durable" default:"false" doc:"also hold messages and records, until the process ends"`
}

// Plugin is the storage plugin "memory".
func Plugin() sdk.Plugin {
	return storage.Define(storage.Descriptor{
		Name: "memory", Version: "1.0.0",
		Summary: "routes, presence, cache, limits and bus in the relay's own memory",
		Traits:  storage.Traits{Batch: 1024, Lanes: 1},
	}, func(_ context.Context, _ sdk.Env, c Config) (storage.Store, error) { return New(c), nil })
}

// New makes a store.
func New(c Config) storage.Store {
	var d Config
	sdk.Defaults(&d)
	for _, n := range []struct{ have, def *int }{
		{&c.Routes, &d.Routes}, {&c.Beats, &d.Beats}, {&c.Values, &d.Values},
		{&c.Buckets, &d.Buckets}, {&c.Backlog, &d.Backlog},
	} {
		if *n.have <= 0 {
			*n.have = *n.def
		}
	}
	if c.Cached <= 0 {
		c.Cached = d.Cached
	}
	b := newBus(c.Backlog)
	s := storage.Store{
		Routes:   newRoutes(c.Routes),
		Presence: newPresence(c.Beats),
		Cache:    newCache(c.Values, int64(c.Cached)),
		Limiter:  newLimiter(c.Buckets),
		Bus:      b,
		Close:    func(context.Context) error { b.close(); return nil },
	}
	if c.Messages {
		q, d := newQueues(), newDirectory()
		s.Queues, s.Directory, s.Inventory = q, d, inventory{q, d}
	}
	return s
}
