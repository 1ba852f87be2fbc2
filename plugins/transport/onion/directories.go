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
// hour. A client that dials before the descriptor with its key is there, and again every
// second, has soon asked all of them, and is locked out. So the pauses between attempts
// grow, also from one dial to the next. tor does not say that it is locked out: it is
// where it refuses two attempts in a row for which it asked no directory. Then it is told to forget what it
// knows of services and whom it has asked: rarely, since with that signal (NEWNYM) every
// service's later streams need new circuits.
type directories struct {
	now          func() time.Time
	again, purge agent.Pauses

	mu       sync.Mutex
	services map[string]*paced
	purged   paced
}

// paced is what happens again and again.
type paced struct {
	pause time.Duration
	last  time.Time
	asked bool // of a service: tor has asked a directory since
	idle  int  // attempts in a row that it refused without
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

// asked notes that tor asks a directory of a service.
func (d *directories) asked(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.service(address).asked = true
}

// reached notes an attempt that came through.
func (d *directories) reached(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.services, address)
}

// failed notes an attempt that did not come through, and says whether tor has to forget
// what it knows. refused is that tor gave it up; else it took too long, and tor still
// tries. Of attempts that fail at the same time one counts.
func (d *directories) failed(address string, refused bool) (forget bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, p := d.now(), d.service(address)
	if now.Before(p.next()) {
		return false
	}
	p.pause, p.last = d.again.Next(p.pause, now.Sub(p.last)), now
	if p.asked || !refused {
		p.asked, p.idle = false, 0
		return false
	}
	p.idle++
	if p.idle < 2 || now.Before(d.purged.next()) {
		return false
	}
	p.idle = 0
	d.purged.pause, d.purged.last = d.purge.Next(d.purged.pause, now.Sub(d.purged.last)), now
	return true
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
