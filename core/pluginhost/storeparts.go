package pluginhost

import (
	"bytes"
	"context"
	"errors"
	"net"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/storage"
)

func noListen(context.Context, string, string) (net.Listener, error) {
	return nil, &sdk.Error{Kind: sdk.Denied, Text: "sockets are lent to transports alone"}
}

func noPacket(context.Context, string, string) (net.PacketConn, error) {
	return nil, &sdk.Error{Kind: sdk.Denied, Text: "sockets are lent to transports alone"}
}

type storeBackend = *backend[storage.Store]

// durableStore offers what the first process offered.
func durableStore(b storeBackend, first storage.Store) storage.Store {
	s := storage.Store{
		Ready: func(ctx context.Context) error {
			v := b.sup.look()
			r, ok := v.current.(*backendRun[storage.Store])
			switch {
			case !ok:
				return &sdk.Error{Kind: sdk.Unavailable, Op: b.sup.name, Text: "it is " + string(v.phase), Err: v.err}
			case r.health() != nil:
				return r.health()
			case r.value.Ready != nil:
				return r.value.Ready(ctx)
			}
			return nil
		},
		Close: func(context.Context) error {
			b.leave()
			return nil
		},
	}
	if first.Queues != nil {
		s.Queues = queues{b}
	}
	if first.Directory != nil {
		s.Directory = directory{b}
	}
	if first.Inventory != nil {
		s.Inventory = inventory{b}
	}
	if first.Routes != nil {
		s.Routes = routes{b}
	}
	if first.Presence != nil {
		s.Presence = presence{b}
	}
	if first.Cache != nil {
		s.Cache = cache{b}
	}
	if first.Limiter != nil {
		s.Limiter = limiter{b}
	}
	if first.Bus != nil {
		s.Bus = bus{b}
	}
	return s
}

// none is the result of calls that only fail.
type none = struct{}

type queues struct{ b storeBackend }

func (q queues) Append(ctx context.Context, now time.Time, batch storage.Batch) ([]storage.Appended, error) {
	return do(ctx, q.b, once, func(ctx context.Context, s storage.Store) ([]storage.Appended, error) {
		return s.Queues.Append(ctx, now, batch)
	})
}

func (q queues) Read(ctx context.Context, now time.Time, queue string, after uint64, max storage.Page) ([]storage.Envelope, error) {
	return do(ctx, q.b, again, func(ctx context.Context, s storage.Store) ([]storage.Envelope, error) {
		return s.Queues.Read(ctx, now, queue, after, max)
	})
}

func (q queues) Done(ctx context.Context, d []storage.Done) error {
	_, err := do(ctx, q.b, again, func(ctx context.Context, s storage.Store) (none, error) { return none{}, s.Queues.Done(ctx, d) })
	return err
}

func (q queues) Depths(ctx context.Context, names []string) ([]storage.Depth, error) {
	return do(ctx, q.b, again, func(ctx context.Context, s storage.Store) ([]storage.Depth, error) {
		return s.Queues.Depths(ctx, names)
	})
}

func (q queues) Marks(ctx context.Context, keys []string) ([][]byte, error) {
	return do(ctx, q.b, again, func(ctx context.Context, s storage.Store) ([][]byte, error) { return s.Queues.Marks(ctx, keys) })
}

func (q queues) Drop(ctx context.Context, queue string) (uint64, error) {
	return do(ctx, q.b, again, func(ctx context.Context, s storage.Store) (uint64, error) { return s.Queues.Drop(ctx, queue) })
}

func (q queues) Purge(ctx context.Context, now time.Time, limit int) (int, error) {
	return do(ctx, q.b, again, func(ctx context.Context, s storage.Store) (int, error) { return s.Queues.Purge(ctx, now, limit) })
}

type inventory struct{ b storeBackend }

func (i inventory) Queues(ctx context.Context, after string, limit int) ([]string, error) {
	return do(ctx, i.b, again, func(ctx context.Context, s storage.Store) ([]string, error) {
		return s.Inventory.Queues(ctx, after, limit)
	})
}

func (i inventory) Marks(ctx context.Context, after string, limit int) ([]string, error) {
	return do(ctx, i.b, again, func(ctx context.Context, s storage.Store) ([]string, error) {
		return s.Inventory.Marks(ctx, after, limit)
	})
}

func (i inventory) Kinds(ctx context.Context, after string, limit int) ([]string, error) {
	return do(ctx, i.b, again, func(ctx context.Context, s storage.Store) ([]string, error) {
		return s.Inventory.Kinds(ctx, after, limit)
	})
}

type directory struct{ b storeBackend }

func (d directory) Get(ctx context.Context, now time.Time, keys []storage.Key) ([]storage.Record, error) {
	return do(ctx, d.b, again, func(ctx context.Context, s storage.Store) ([]storage.Record, error) {
		return s.Directory.Get(ctx, now, keys)
	})
}

func (d directory) List(ctx context.Context, now time.Time, r storage.Range) ([]storage.Record, error) {
	return do(ctx, d.b, again, func(ctx context.Context, s storage.Store) ([]storage.Record, error) {
		return s.Directory.List(ctx, now, r)
	})
}

// Commit that a process's end interrupted may have taken effect. It is repeated; a
// conflict is then no conflict if the directory holds exactly what was to be written.
func (d directory) Commit(ctx context.Context, now time.Time, w []storage.Write) error {
	tries := 0
	_, err := do(ctx, d.b, again, func(ctx context.Context, s storage.Store) (none, error) {
		tries++
		err := s.Directory.Commit(ctx, now, w)
		var conflict *storage.ConflictError
		if tries > 1 && errors.As(err, &conflict) {
			written, e := written(ctx, s.Directory, now, w)
			if e != nil {
				return none{}, e
			}
			if written {
				return none{}, nil
			}
		}
		return none{}, err
	})
	return err
}

// written says that every record is as the commit would have left it.
func written(ctx context.Context, d storage.Directory, now time.Time, w []storage.Write) (bool, error) {
	keys := make([]storage.Key, len(w))
	for i := range w {
		keys[i] = w[i].Key
	}
	have, err := d.Get(ctx, now, keys)
	if err != nil || len(have) != len(w) {
		return false, err
	}
	changed := false
	for i, r := range have {
		switch {
		case w[i].CheckOnly:
			continue
		case w[i].Value == nil && r.Version != 0,
			w[i].Value != nil && (r.Version == 0 || !bytes.Equal(r.Value, w[i].Value)):
			return false, nil
		}
		changed = true
	}
	return changed, nil
}

func (d directory) Purge(ctx context.Context, now time.Time, limit int) (int, error) {
	return do(ctx, d.b, again, func(ctx context.Context, s storage.Store) (int, error) { return s.Directory.Purge(ctx, now, limit) })
}

type routes struct{ b storeBackend }

func (r routes) Claim(ctx context.Context, now time.Time, c []storage.Claim) ([]uint64, error) {
	return do(ctx, r.b, again, func(ctx context.Context, s storage.Store) ([]uint64, error) { return s.Routes.Claim(ctx, now, c) })
}

func (r routes) Renew(ctx context.Context, now time.Time, list []storage.Renewal) ([]bool, error) {
	return do(ctx, r.b, again, func(ctx context.Context, s storage.Store) ([]bool, error) { return s.Routes.Renew(ctx, now, list) })
}

func (r routes) Lookup(ctx context.Context, now time.Time, devices []string) ([]storage.Route, error) {
	return do(ctx, r.b, again, func(ctx context.Context, s storage.Store) ([]storage.Route, error) {
		return s.Routes.Lookup(ctx, now, devices)
	})
}

type presence struct{ b storeBackend }

func (p presence) Announce(ctx context.Context, now time.Time, list []storage.Beat) error {
	_, err := do(ctx, p.b, again, func(ctx context.Context, s storage.Store) (none, error) {
		return none{}, s.Presence.Announce(ctx, now, list)
	})
	return err
}

func (p presence) Beats(ctx context.Context, now time.Time, devices []string) ([]storage.Beat, error) {
	return do(ctx, p.b, again, func(ctx context.Context, s storage.Store) ([]storage.Beat, error) {
		return s.Presence.Beats(ctx, now, devices)
	})
}

type cache struct{ b storeBackend }

func (c cache) Put(ctx context.Context, now time.Time, key string, value []byte, ttl time.Duration) error {
	_, err := do(ctx, c.b, again, func(ctx context.Context, s storage.Store) (none, error) {
		return none{}, s.Cache.Put(ctx, now, key, value, ttl)
	})
	return err
}

func (c cache) Get(ctx context.Context, now time.Time, key string) ([]byte, error) {
	return do(ctx, c.b, again, func(ctx context.Context, s storage.Store) ([]byte, error) { return s.Cache.Get(ctx, now, key) })
}

// Take is not repeated: the value may be gone, and nobody must get it twice.
func (c cache) Take(ctx context.Context, now time.Time, key string) ([]byte, error) {
	return do(ctx, c.b, once, func(ctx context.Context, s storage.Store) ([]byte, error) { return s.Cache.Take(ctx, now, key) })
}

func (c cache) Delete(ctx context.Context, keys ...string) error {
	_, err := do(ctx, c.b, again, func(ctx context.Context, s storage.Store) (none, error) { return none{}, s.Cache.Delete(ctx, keys...) })
	return err
}

type limiter struct{ b storeBackend }

// Take may take twice when a process ends under it, which only makes it stricter.
func (l limiter) Take(ctx context.Context, now time.Time, key string, r storage.Rate, n uint32) (time.Duration, error) {
	return do(ctx, l.b, again, func(ctx context.Context, s storage.Store) (time.Duration, error) {
		return s.Limiter.Take(ctx, now, key, r, n)
	})
}

type bus struct{ b storeBackend }

func (u bus) Publish(ctx context.Context, node string, messages [][]byte) error {
	_, err := do(ctx, u.b, again, func(ctx context.Context, s storage.Store) (none, error) {
		return none{}, s.Bus.Publish(ctx, node, messages)
	})
	return err
}

// Subscribe lasts until ctx ends: with each process anew. What was published while
// none ran is lost, as the bus's contract allows.
func (u bus) Subscribe(ctx context.Context, self string, f func(message []byte)) error {
	for {
		cur, err := u.b.sup.wait(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			v := u.b.sup.look()
			if v.phase == Stopped {
				return err
			}
			select { // parked: until an operator acts
			case <-v.changed:
			case <-ctx.Done():
			}
			continue
		}
		// Not counted as a call: a drain must not wait for it.
		err = cur.(*backendRun[storage.Store]).value.Bus.Subscribe(ctx, self, f)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if cur.(*backendRun[storage.Store]).Err() == nil && err != nil && u.b.sup.look().current == cur {
			return err
		}
		if err := u.b.next(ctx, cur); err != nil {
			return ctx.Err()
		}
	}
}

// lastingLedger is a ledger that outlives its processes. Everything may be repeated:
// Submit knows records by their number.
type lastingLedger struct{ b *backend[ledger.Ledger] }

func (l lastingLedger) Submit(ctx context.Context, r []ledger.Record) error {
	_, err := do(ctx, l.b, again, func(ctx context.Context, v ledger.Ledger) (none, error) { return none{}, v.Submit(ctx, r) })
	return err
}

func (l lastingLedger) Head(ctx context.Context) (ledger.Record, error) {
	return do(ctx, l.b, again, func(ctx context.Context, v ledger.Ledger) (ledger.Record, error) { return v.Head(ctx) })
}

func (l lastingLedger) Read(ctx context.Context, after uint64, limit int) ([]ledger.Record, error) {
	return do(ctx, l.b, again, func(ctx context.Context, v ledger.Ledger) ([]ledger.Record, error) { return v.Read(ctx, after, limit) })
}

func (l lastingLedger) Close(context.Context) error {
	l.b.leave()
	return nil
}
