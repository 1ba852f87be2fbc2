package account

import (
	"sync"
	"time"
)

// cache remembers devices. An entry read from the directory while another
// goroutine changed the device is not taken: put names the generation that held
// before the read, and every drop begins a new one.
type cache struct {
	mu      sync.Mutex
	limit   int
	age     time.Duration
	gen     uint64
	devices map[string]cached
}

type cached struct {
	device Device
	at     time.Time
}

func (c *cache) init(limit int, age time.Duration) {
	c.limit, c.age = limit, age
	c.devices = make(map[string]cached)
}

func (c *cache) get(id string, now time.Time) (Device, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.devices[id]
	if !ok {
		return Device{}, false
	}
	if c.age > 0 && (now.Sub(e.at) >= c.age || now.Before(e.at)) {
		delete(c.devices, id)
		return Device{}, false
	}
	return e.device, true
}

func (c *cache) generation() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gen
}

func (c *cache) put(d Device, gen uint64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if gen != c.gen {
		return
	}
	if _, ok := c.devices[d.ID]; !ok && len(c.devices) >= c.limit {
		for id := range c.devices { // any one: map order is as good as random
			delete(c.devices, id)
			break
		}
	}
	c.devices[d.ID] = cached{d, now}
}

func (c *cache) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	delete(c.devices, id)
}
