package masque

import (
	"errors"
	"io"
	"sync"
	"time"
)

// quotaWindow is the time over which a guest's bytes are counted.
const quotaWindow = 24 * time.Hour

var (
	errSessions = errors.New("the guest has too many streams")
	errBytes    = errors.New("the guest has used up its bytes")
)

// guests are those who are connected or have used bytes lately: quotas, and what to
// close when a guest is revoked. Only who has proved a key gets in here, so its
// size is bounded by the keys that the relay has given out.
type guests struct {
	sessions int
	bytes    int64 // 0: no limit
	now      func() time.Time

	mu    sync.Mutex
	all   map[string]*guest
	open  int           // passes
	quiet chan struct{} // closed when open is 0; nil while nobody asks
}

type guest struct {
	open  map[*pass]struct{}
	used  int64 // in the window that began at since
	since time.Time
}

// pass is one stream or tunnel of a guest.
type pass struct {
	all   *guests
	id    string
	until *time.Timer // the grant's end; nil without one

	mu     sync.Mutex
	closer io.Closer
	ended  bool
}

func newGuests(sessions int, bytes int64, now func() time.Time) *guests {
	return &guests{sessions: sessions, bytes: bytes, now: now, all: make(map[string]*guest)}
}

// enter lets a guest in, or names the quota that is used up.
func (g *guests) enter(t grant) (*pass, error) {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	one := g.all[t.guest]
	if one == nil {
		one = &guest{open: make(map[*pass]struct{}), since: now}
		g.all[t.guest] = one
	}
	if now.Sub(one.since) >= quotaWindow {
		one.used, one.since = 0, now
	}
	var err error
	switch {
	case len(one.open) >= g.sessions:
		err = errSessions
	case g.bytes > 0 && one.used >= g.bytes:
		err = errBytes
	}
	if err != nil {
		return nil, err
	}
	p := &pass{all: g, id: t.guest}
	one.open[p] = struct{}{}
	g.open++
	if !t.expires.IsZero() {
		p.until = time.AfterFunc(t.expires.Sub(now), p.end)
	}
	return p, nil
}

// hold says what ends with the pass. If it has ended already, c is closed at once.
func (p *pass) hold(c io.Closer) {
	p.mu.Lock()
	p.closer = c
	ended := p.ended
	p.mu.Unlock()
	if ended {
		_ = c.Close()
	}
}

// count adds bytes that passed; false says that the quota is used up.
func (p *pass) count(n int) bool {
	if p.all.bytes <= 0 || n <= 0 {
		return true
	}
	p.all.mu.Lock()
	defer p.all.mu.Unlock()
	one := p.all.all[p.id]
	if one == nil {
		return true
	}
	one.used += int64(n)
	return one.used <= p.all.bytes
}

// end closes what the pass is for.
func (p *pass) end() {
	p.mu.Lock()
	c := p.closer
	p.ended = true
	p.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

// leave gives the pass back; once it has been called nothing is closed any more.
func (p *pass) leave() {
	if p.until != nil {
		p.until.Stop()
	}
	p.all.mu.Lock()
	defer p.all.mu.Unlock()
	one := p.all.all[p.id]
	if one == nil {
		return
	}
	if _, ok := one.open[p]; !ok {
		return
	}
	delete(one.open, p)
	if p.all.open--; p.all.open == 0 && p.all.quiet != nil {
		close(p.all.quiet)
		p.all.quiet = nil
	}
	if len(one.open) == 0 && (p.all.bytes <= 0 || p.all.now().Sub(one.since) >= quotaWindow) {
		delete(p.all.all, p.id)
	}
}

// expel ends all passes of a guest.
func (g *guests) expel(id string) {
	g.mu.Lock()
	var open []*pass
	if one := g.all[id]; one != nil {
		for p := range one.open {
			open = append(open, p)
		}
	}
	g.mu.Unlock()
	for _, p := range open {
		p.end()
	}
}

// empty is closed when no guest has anything open.
func (g *guests) empty() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	if g.quiet == nil {
		g.quiet = make(chan struct{})
	}
	return g.quiet
}

// sweep forgets guests whose window is over.
func (g *guests) sweep() {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, one := range g.all {
		if len(one.open) == 0 && now.Sub(one.since) >= quotaWindow {
			delete(g.all, id)
		}
	}
}
