package account

import (
	"sync"
	"time"
)

// cache remembers devices. An entry read from the directory while another
// goroutine changed the device is not taken: put names the generation that held
// before the read, and every drop begins a new one.
//
// It also remembers what the last handshake of a device read. That may be out of
// date at any time: it is used only where the Commit checks the versions, and
// nobody is refused because of it.
type cache struct {
	mu        sync.Mutex
	limit     int
	age       time.Duration
	gen       uint64
	devices   map[string]cached
	standings map[string]*standing
}

// maxStandings bounds the standings, which take about 1.5 KiB each.
const maxStandings = 2048

// standing is what a handshake of a known device reads. It is shared: whoever
// changes a part copies it first.
type standing struct {
	record held[deviceRecord]
	device Device // of record, with the certificate parsed
	user   held[userRecord]
}

type cached struct {
	device Device
	at     time.Time
}

func (c *cache) init(limit int, age time.Duration) {
	c.limit, c.age = limit, age
	c.devices = make(map[string]cached)
	c.standings = make(map[string]*standing)
}

func (c *cache) standing(device string) *standing {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.standings[device]
}

func (c *cache) keep(device string, st *standing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	makeRoom(c.standings, device, maxStandings)
	c.standings[device] = st
}

// makeRoom drops any one entry of a full map: its order is as good as random.
func makeRoom[V any](m map[string]V, id string, limit int) {
	if _, ok := m[id]; ok || len(m) < limit {
		return
	}
	for id := range m {
		delete(m, id)
		return
	}
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
	makeRoom(c.devices, d.ID, c.limit)
	c.devices[d.ID] = cached{d, now}
}

func (c *cache) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	delete(c.devices, id)
	delete(c.standings, id)
}
