package onion

import (
	"sync"
	"time"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
)

// maxServices bounds the services of which pauses are remembered.
const maxServices = 256

// directories are those that keep services' descriptors, as a client deals with them.
//
// tor asks each of a service's directories (clients know six) once in a quarter of an
// hour, whatever came of it. A client that dials before the descriptor is there, and asks
// again every second, has soon asked all of them, and is locked out. So the pauses
// between attempts grow, also from one dial to the next. Where tor is locked out all the
// same, it is told to forget whom it has asked: rarely, since with that signal (NEWNYM)
// every service's later streams need new circuits.
type directories struct {
	now          func() time.Time
	again, purge agent.Pauses

	mu       sync.Mutex
	services map[string]*paced
	purged   paced
}

// paced is what happens again and again.
type paced struct {
	pause  time.Duration
	last   time.Time
	locked bool // of a service: tor has asked all directories
}

func (p *paced) next() time.Time { return p.last.Add(p.pause) }

func newDirectories(now func() time.Time) *directories {
	return &directories{
		now: now, services: map[string]*paced{},
		again: agent.Pauses{Least: time.Second, Most: 15 * time.Second, Well: 5 * time.Minute},
		purge: agent.Pauses{Least: 20 * time.Second, Most: 10 * time.Minute, Well: time.Hour},
	}
}

// wait is how long the next attempt to reach a service must wait.
func (d *directories) wait(address string) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.services[address]; p != nil {
		return max(0, p.next().Sub(d.now()))
	}
	return 0
}

// lockedOut notes that tor finds no directory of a service that it may ask.
func (d *directories) lockedOut(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.service(address).locked = true
}

// reached notes an attempt that came through.
func (d *directories) reached(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.services, address)
}

// failed notes an attempt that did not come through, and gives the request that tor needs
// before the next one, "" none. Of attempts that fail at the same time one asks.
func (d *directories) failed(address string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, p := d.now(), d.service(address)
	if now.Before(p.next()) {
		return ""
	}
	p.pause, p.last = d.again.Next(p.pause, now.Sub(p.last)), now
	if !p.locked {
		// A descriptor from before the guest was let in would be kept for hours.
		return "HSFETCH " + address
	}
	if now.Before(d.purged.next()) {
		return ""
	}
	d.purged.pause, d.purged.last = d.purge.Next(d.purged.pause, now.Sub(d.purged.last)), now
	for _, other := range d.services {
		other.locked = false
	}
	return "SIGNAL NEWNYM"
}

// service finds what is known of one; d.mu is held.
func (d *directories) service(address string) *paced {
	p := d.services[address]
	if p != nil {
		return p
	}
	if len(d.services) >= maxServices {
		oldest := ""
		for a, p := range d.services {
			if oldest == "" || p.last.Before(d.services[oldest].last) {
				oldest = a
			}
		}
		delete(d.services, oldest)
	}
	p = &paced{}
	d.services[address] = p
	return p
}
