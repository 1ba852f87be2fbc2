package bench

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
)

// Target is a running relay.
type Target struct {
	// Link is an invitation with room for every client of the case.
	Link string
	// Dir is a folder on the disk of its data, where files may be put.
	Dir  string
	PID  int
	Stop func() error
}

// peer is one simulated device.
type peer struct {
	f        *fleet
	profile  *client.Profile
	store    *client.MemoryStore
	client   *client.Client
	cancel   context.CancelFunc
	ended    chan error
	received atomic.Int64

	mu      sync.Mutex
	lates   []time.Duration
	highest map[uint32]uint64 // per sending peer
	doubled int64
}

// fleet is the devices of one case.
type fleet struct {
	dialer transport.Dialer
	link   link.Link
	// timed makes handlers note the latency that bodies carry.
	timed atomic.Bool
	total atomic.Int64
	// want, when reached by total, closes reached.
	want    atomic.Int64
	reached chan struct{}
	once    sync.Once
	peers   []*peer
}

func newFleet(t *Target, d transport.Dialer) (*fleet, error) {
	l, err := link.Parse(t.Link)
	if err != nil {
		return nil, err
	}
	return &fleet{dialer: d, link: l, reached: make(chan struct{})}, nil
}

// grow registers and connects n more devices, a few at a time.
func (f *fleet) grow(ctx context.Context, n int) error {
	const parallel = 8
	from := len(f.peers)
	f.peers = append(f.peers, make([]*peer, n)...)
	return each(ctx, parallel, n, func(ctx context.Context, i int) error {
		p, err := f.register(ctx, from+i)
		f.peers[from+i] = p
		return err
	})
}

func (f *fleet) register(ctx context.Context, i int) (*peer, error) {
	profile, err := client.NewProfile(f.link, fmt.Sprintf("bench-%d-%s", i, rand.Text()[:8]), rand.Reader)
	if err != nil {
		return nil, err
	}
	p := &peer{f: f, profile: profile, highest: make(map[uint32]uint64)}
	var log [8]byte
	rand.Read(log[:])
	p.store = client.NewMemoryStore(log)
	return p, p.connect(ctx)
}

// connect starts the device's client and waits until it is connected.
func (p *peer) connect(ctx context.Context) error {
	c, err := client.New(client.Options{
		Profile: p.profile, Store: p.store, Dialers: []transport.Dialer{p.f.dialer}, Handle: p.handle,
		AnswerTimeout: time.Minute,
	})
	if err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.client, p.cancel, p.ended = c, cancel, make(chan error, 1)
	go func() { p.ended <- c.Run(run) }()
	wait, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	failed := make(chan error, 1)
	go func() {
		_, err := c.Connected(wait)
		failed <- err
	}()
	select {
	case err := <-failed:
		if err != nil {
			p.close()
			return fmt.Errorf("a client could not connect: %w", err)
		}
		p.profile = c.Profile()
		return nil
	case err := <-p.ended:
		p.ended <- err
		p.close()
		return fmt.Errorf("a client was refused: %w", err)
	}
}

// close disconnects the device; its profile and store stay.
func (p *peer) close() {
	if p == nil || p.client == nil {
		return
	}
	p.cancel()
	<-p.ended //nolint:errcheck // why it ended was told before
	_ = p.client.Close()
	p.client = nil
}

func (f *fleet) close() {
	var wg sync.WaitGroup
	for _, p := range f.peers {
		wg.Go(p.close)
	}
	wg.Wait()
}

// A body begins with the sender's number, its counter for this recipient and the
// time of sending.
const bodyHead = 4 + 8 + 8

func makeBody(size int, sender uint32, n uint64) []byte {
	b := make([]byte, max(size, bodyHead))
	binary.BigEndian.PutUint32(b, sender)
	binary.BigEndian.PutUint64(b[4:], n)
	binary.BigEndian.PutUint64(b[12:], uint64(time.Now().UnixNano()))
	return b
}

func (p *peer) handle(m client.Message) error {
	if len(m.Body) < bodyHead {
		return nil
	}
	sender, n := binary.BigEndian.Uint32(m.Body), binary.BigEndian.Uint64(m.Body[4:])
	p.mu.Lock()
	if n <= p.highest[sender] {
		p.doubled++
	} else {
		p.highest[sender] = n
	}
	if p.f.timed.Load() {
		p.lates = append(p.lates, time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(m.Body[12:])))))
	}
	p.mu.Unlock()
	p.received.Add(1)
	if p.f.total.Add(1) == p.f.want.Load() {
		p.f.once.Do(func() { close(p.f.reached) })
	}
	return nil
}

// expect waits until n messages in all have arrived.
func (f *fleet) expect(ctx context.Context, n int64, limit time.Duration) error {
	f.want.Store(n)
	if f.total.Load() >= n {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-f.reached:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("only %d of %d messages arrived within %v", f.total.Load(), n, limit)
	}
}

// latencies takes what the handlers noted, and how many messages came twice or
// out of order.
func (f *fleet) latencies() (all []time.Duration, doubled int64) {
	for _, p := range f.peers {
		p.mu.Lock()
		all = append(all, p.lates...)
		p.lates = nil
		doubled += p.doubled
		p.mu.Unlock()
	}
	return all, doubled
}

// each runs work(0) … work(n-1), parallel at a time, and stops at the first
// error.
func each(ctx context.Context, parallel, n int, work func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		next atomic.Int64
		wg   sync.WaitGroup
	)
	for range min(parallel, n) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := work(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return ctx.Err()
}
