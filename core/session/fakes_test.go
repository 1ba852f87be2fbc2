package session

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/transport"
)

// fakeRelay records what sessions hand over, and lets tests push.
type fakeRelay struct {
	mu    sync.Mutex
	links map[string]*fakeLink // newest of each device
	all   []*fakeLink
	fence uint64
	logs  []relay.LogState
	// handle, when set, is called for each frame.
	handle func(l *fakeLink, f ccp.Frame) error
}

type fakeLink struct {
	r      *fakeRelay
	box    relay.Outbox
	fence  uint64
	cursor uint64
	frames chan ccp.Frame
	alive  chan uint64
	gone   chan struct{}
	once   sync.Once

	mu      sync.Mutex
	started bool
}

func (r *fakeRelay) Attach(_ context.Context, box relay.Outbox, cursor uint64) (Link, error) {
	r.mu.Lock()
	r.fence++
	l := &fakeLink{r: r, box: box, fence: r.fence, cursor: cursor,
		frames: make(chan ccp.Frame, 4096), alive: make(chan uint64, 64), gone: make(chan struct{})}
	if r.links == nil {
		r.links = make(map[string]*fakeLink)
	}
	old := r.links[box.Device()]
	r.links[box.Device()] = l
	r.all = append(r.all, l)
	r.mu.Unlock()
	if old != nil {
		old.box.Close(ccp.CodeReplaced)
		old.Detach()
	}
	return l, nil
}

func (r *fakeRelay) link(device string) *fakeLink {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.links[device]
}

func (r *fakeRelay) attached() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

func (l *fakeLink) Handle(f ccp.Frame) error {
	if l.r.handle != nil {
		return l.r.handle(l, f)
	}
	f.Payload = append([]byte(nil), f.Payload...)
	select {
	case l.frames <- f:
		return nil
	case <-l.gone:
		return relay.ErrClosed
	}
}

func (l *fakeLink) Alive(w uint64)         { l.alive <- w }
func (l *fakeLink) Logs() []relay.LogState { return l.r.logs }
func (l *fakeLink) Fence() uint64          { return l.fence }
func (l *fakeLink) Cursor() uint64         { return l.cursor }

func (l *fakeLink) Start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started = true
}

func (l *fakeLink) Detach() {
	l.once.Do(func() {
		close(l.gone)
		l.r.mu.Lock()
		defer l.r.mu.Unlock()
		if l.r.links[l.box.Device()] == l {
			delete(l.r.links, l.box.Device())
		}
	})
}

// fakeCache is a storage.Cache in memory.
type fakeCache struct {
	mu sync.Mutex
	m  map[string]cacheEntry
}

type cacheEntry struct {
	v     []byte
	until time.Time
}

func (c *fakeCache) Put(_ context.Context, now time.Time, key string, v []byte, ttl time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = make(map[string]cacheEntry)
	}
	c.m[key] = cacheEntry{append([]byte(nil), v...), now.Add(ttl)}
	return nil
}

func (c *fakeCache) Get(_ context.Context, now time.Time, key string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.m[key]
	if !ok || !e.until.After(now) {
		return nil, nil
	}
	return e.v, nil
}

func (c *fakeCache) Take(ctx context.Context, now time.Time, key string) ([]byte, error) {
	v, err := c.Get(ctx, now, key)
	return v, errorsJoin(err, c.Delete(ctx, key))
}

func (c *fakeCache) Delete(_ context.Context, keys ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range keys {
		delete(c.m, k)
	}
	return nil
}

func (c *fakeCache) dump() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprint(c.m)
}

func errorsJoin(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// factsConn gives a conn the facts of a transport.
type factsConn struct {
	net.Conn
	facts transport.Facts
}

func (c *factsConn) Path() transport.Facts { return c.facts }

// withheldConn is the connect path of the reference: nothing is answered before
// the first write.
type withheldConn struct {
	factsConn
	refused chan struct{}
	once    sync.Once
}

func (c *withheldConn) Refuse() { c.once.Do(func() { close(c.refused) }) }

// framedConn repeats the header of each frame, as SSE and NDJSON do.
type framedConn struct {
	factsConn
	mu     sync.Mutex
	labels []string
}

func (c *framedConn) WriteFrame(label string, channel, sequence uint32, unit []byte) error {
	c.mu.Lock()
	c.labels = append(c.labels, fmt.Sprintf("%s/%d/%d", label, channel, sequence))
	c.mu.Unlock()
	_, err := c.Conn.Write(unit)
	return err
}

func containsAny(s string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}
