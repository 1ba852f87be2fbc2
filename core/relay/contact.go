package relay

import (
	"context"
	"sync"
	"time"

	"github.com/commucat/commucat/sdk/storage"
)

const (
	kindContact = "contact"
	maxContacts = 1 << 16 // remembered in memory
	day         = 24 * time.Hour
)

// contacts decides who may write to whom. A pair that has written once stays
// acquainted; new pairs are counted per account and day.
type contacts struct {
	h     *Hub
	mu    sync.Mutex
	known map[string]struct{}
	local map[string]*bucket // where the store offers no limiter
}

type bucket struct {
	left float64
	last time.Time
}

func newContacts(h *Hub) *contacts {
	return &contacts{h: h, known: map[string]struct{}{}, local: map[string]*bucket{}}
}

func pairID(from, to string) string { return from + "\x00" + to }

// allowed says whether an account may write to another. A new pair costs one of
// the day's new contacts; with remember it becomes acquainted by that, without
// (the device is gone) the answer is no.
func (c *contacts) allowed(ctx context.Context, from, to string, remember bool) (bool, error) {
	if from == to {
		return true, nil
	}
	if c.h.opt.Contact == OnlyFriends {
		if c.h.opt.Friends == nil {
			return false, nil
		}
		return c.h.opt.Friends(ctx, to, from)
	}
	pair := pairID(from, to)
	c.mu.Lock()
	_, ok := c.known[pair]
	c.mu.Unlock()
	if ok {
		return true, nil
	}
	now := c.h.now()
	key := storage.Key{Kind: kindContact, ID: pair}
	back := storage.Key{Kind: kindContact, ID: pairID(to, from)}
	recs, err := c.h.directory.Get(ctx, now, []storage.Key{key, back})
	if err != nil {
		return false, err
	}
	for _, r := range recs {
		if r.Version != 0 { // either has written before: an answer is no new contact
			c.remember(pair)
			return true, nil
		}
	}
	if ok, err := c.take(ctx, from); !ok || err != nil {
		return false, err
	}
	if !remember {
		return false, nil
	}
	err = c.h.directory.Commit(ctx, now, []storage.Write{{Key: key, Expect: storage.AnyVersion, Value: []byte{}}})
	if err != nil {
		return false, err
	}
	c.remember(pair)
	return true, nil
}

// unknown charges an attempt to reach a name that does not exist as if it did.
func (c *contacts) unknown(ctx context.Context, from string) {
	if c.h.opt.Contact == Members {
		_, _ = c.take(ctx, from)
	}
}

func (c *contacts) remember(pair string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxContacts {
		for k := range c.known {
			delete(c.known, k)
			break
		}
	}
	c.known[pair] = struct{}{}
}

// take spends one of the day's new contacts.
func (c *contacts) take(ctx context.Context, user string) (bool, error) {
	now, burst := c.h.now(), c.h.opt.Limits.NewContacts
	if lim := c.h.opt.Store.Limiter; lim != nil {
		call, cancel := context.WithTimeout(ctx, c.h.bus.patience())
		wait, err := lim.Take(call, now, "contact:"+user, storage.Rate{Burst: uint32(burst), Per: day}, 1)
		cancel()
		if err == nil {
			return wait == 0, nil
		}
		c.h.log.Warn("limiter", "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.local[user]
	if b == nil {
		if len(c.local) >= maxContacts {
			for k := range c.local {
				delete(c.local, k)
				break
			}
		}
		b = &bucket{left: float64(burst), last: now}
		c.local[user] = b
	}
	b.left = min(float64(burst), b.left+float64(burst)*now.Sub(b.last).Seconds()/day.Seconds())
	b.last = now
	if b.left < 1 {
		return false, nil
	}
	b.left--
	return true, nil
}
