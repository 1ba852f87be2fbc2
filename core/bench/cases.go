package bench

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/transport"
)

// Options describe a run.
type Options struct {
	// Dialer is the transport to load.
	Dialer transport.Dialer
	// Start starts a fresh relay process with limits wide enough for the load.
	Start func(ctx context.Context) (*Target, error)
	// Duration of each timed case; Size of a message's body in bytes.
	Duration time.Duration
	Size     int
	// Clients of the 1:1 cases, Rate of the latency case (messages a second).
	Clients, Rate int
	// Members of the fan-out, Recipients and Messages of the offline case,
	// Sessions of the idle case.
	Members, Recipients, Messages, Sessions int
	// Outstanding is how many messages a sender keeps unacknowledged.
	Outstanding int
	// Progress is told what begins.
	Progress func(string)
}

// Defaults fills in what is zero.
func (o Options) Defaults() Options {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	if o.Duration == 0 {
		o.Duration = 5 * time.Second
	}
	set(&o.Size, 256)
	set(&o.Clients, 100)
	set(&o.Rate, 2000)
	set(&o.Members, 100)
	set(&o.Recipients, 50)
	set(&o.Messages, 200_000)
	set(&o.Sessions, 5000)
	set(&o.Outstanding, 64)
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o
}

// Names lists the cases in the order of a full run.
func Names() []string {
	return []string{"pairs", "latency", "fanout", "offline", "connect", "idle"}
}

// Run measures one case by name; "offline" gives two.
func Run(ctx context.Context, name string, o Options) (out []Case, err error) {
	o = o.Defaults()
	cases := map[string]func(context.Context, Options, *Target, *fleet) ([]Case, error){
		"pairs": pairs, "latency": latency, "fanout": fanout, "offline": offline, "connect": connects, "idle": idle,
	}
	run, ok := cases[name]
	if !ok {
		return nil, fmt.Errorf("no benchmark named %q: there are %v", name, Names())
	}
	o.Progress(name + ": starting a relay")
	t, err := o.Start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if stopErr := t.Stop(); err == nil {
			err = stopErr
		}
	}()
	f, err := newFleet(t, o.Dialer)
	if err != nil {
		return nil, err
	}
	defer f.close()
	out, err = run(ctx, o, t, f)
	for i := range out {
		out[i].Transport = o.Dialer.Name()
	}
	return out, err
}

// sender keeps at most n messages unacknowledged.
type sender struct {
	from   *peer
	number uint32
	size   int
	counts map[string]uint64
	ring   []*client.Ticket
	acked  int64
	warmed int64 // acknowledged before the measurement
}

func newSender(from *peer, number uint32, size, outstanding int) *sender {
	return &sender{
		from: from, number: number, size: size, counts: make(map[string]uint64),
		ring: make([]*client.Ticket, 0, outstanding),
	}
}

// send waits for the oldest acknowledgement when the ring is full.
func (s *sender) send(ctx context.Context, d client.Draft, key string) error {
	if len(s.ring) == cap(s.ring) {
		if err := s.take(ctx); err != nil {
			return err
		}
	}
	s.counts[key]++
	d.Body = makeBody(s.size, s.number, s.counts[key])
	t, err := s.from.client.Send(d)
	if err != nil {
		return err
	}
	s.ring = append(s.ring, t)
	return nil
}

func (s *sender) take(ctx context.Context) error {
	res, err := s.ring[0].Wait(ctx)
	if err != nil {
		return err
	}
	if len(res.Refused) > 0 {
		return fmt.Errorf("the relay refused a message: %s", res.Refused[0].Code)
	}
	s.ring = s.ring[:copy(s.ring, s.ring[1:])]
	s.acked++
	return nil
}

func (s *sender) drain(ctx context.Context) error {
	for len(s.ring) > 0 {
		if err := s.take(ctx); err != nil {
			return err
		}
	}
	return nil
}

// load lets every sender send to its target until the time is up, and waits for
// all acknowledgements.
func load(ctx context.Context, d time.Duration, senders []*sender, to func(i int) client.Draft) (int64, error) {
	stop, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	ctx, cancelAll := context.WithTimeout(ctx, d+30*time.Second)
	defer cancelAll()
	err := each(ctx, len(senders), len(senders), func(ctx context.Context, i int) error {
		draft := to(i)
		for stop.Err() == nil {
			if err := senders[i].send(ctx, draft, ""); err != nil {
				return err
			}
		}
		return senders[i].drain(ctx)
	})
	var n int64
	for _, s := range senders {
		n += s.acked
	}
	return n, err
}

// pairs: half of the clients send to the other half and back, as fast as the
// acknowledgements allow. Counted are messages acknowledged after fsync and
// delivered.
func pairs(ctx context.Context, o Options, t *Target, f *fleet) ([]Case, error) {
	c := Case{Name: "pairs", Clients: o.Clients, Bytes: o.Size, Unit: "msg/s"}
	n := o.Clients &^ 1
	if err := f.grow(ctx, n); err != nil {
		return nil, err
	}
	senders := make([]*sender, n)
	for i := range senders {
		senders[i] = newSender(f.peers[i], uint32(i), o.Size, o.Outstanding)
	}
	to := func(i int) client.Draft { return client.Draft{To: []string{f.peers[i^1].profile.DeviceID}} }
	o.Progress("pairs: warming up")
	if _, err := load(ctx, time.Second, senders, to); err != nil {
		return nil, err
	}
	for _, s := range senders {
		s.acked = 0
	}
	o.Progress("pairs: measuring")
	m, err := startMeter(t.PID)
	if err != nil {
		return nil, err
	}
	count, err := load(ctx, o.Duration, senders, to)
	if err != nil {
		return nil, err
	}
	if err := m.stop(&c, count); err != nil {
		return nil, err
	}
	return []Case{c}, f.settle(ctx, &c, senders)
}

// settle waits until everything acknowledged has arrived and counts the rest.
func (f *fleet) settle(ctx context.Context, c *Case, senders []*sender) error {
	var sent int64
	for _, s := range senders {
		for _, n := range s.counts {
			sent += int64(n)
		}
	}
	if err := f.expect(ctx, sent, 30*time.Second); err != nil {
		c.Lost = sent - f.total.Load()
		return err
	}
	_, c.Repeated = f.latencies()
	if c.Repeated > 0 {
		return fmt.Errorf("%d messages came twice or out of order", c.Repeated)
	}
	return nil
}

// latency: a fixed rate over all clients, from Send to the recipient's handler.
func latency(ctx context.Context, o Options, t *Target, f *fleet) ([]Case, error) {
	c := Case{Name: "latency", Clients: o.Clients, Bytes: o.Size, Unit: "msg/s"}
	n := o.Clients &^ 1
	if err := f.grow(ctx, n); err != nil {
		return nil, err
	}
	senders := make([]*sender, n)
	for i := range senders {
		senders[i] = newSender(f.peers[i], uint32(i), o.Size, 256)
	}
	o.Progress("latency: warming up")
	if err := f.warm(ctx, senders); err != nil {
		return nil, err
	}
	o.Progress("latency: the disk alone")
	var disk floor
	if err := disk.add(t.Dir, o.Rate, o.Duration/2); err != nil {
		return nil, err
	}
	o.Progress("latency: measuring")
	f.timed.Store(true)
	m, err := startMeter(t.PID)
	if err != nil {
		return nil, err
	}
	pause := time.Duration(float64(time.Second) * float64(n) / float64(o.Rate))
	err = each(ctx, n, n, func(ctx context.Context, i int) error {
		s, peer := senders[i], f.peers[i^1].profile.DeviceID
		next := time.Now().Add(pause * time.Duration(i) / time.Duration(n))
		for end := time.Now().Add(o.Duration); time.Now().Before(end); next = next.Add(pause) {
			select {
			case <-time.After(time.Until(next)):
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := s.send(ctx, client.Draft{To: []string{peer}}, ""); err != nil {
				return err
			}
			for len(s.ring) > 0 && isDone(s.ring[0]) {
				if err := s.take(ctx); err != nil {
					return err
				}
			}
		}
		return s.drain(ctx)
	})
	if err != nil {
		return nil, err
	}
	var count int64
	for _, s := range senders {
		count += s.acked
	}
	if err := m.stop(&c, count); err != nil {
		return nil, err
	}
	before := int64(0)
	for _, s := range senders {
		before += s.warmed
	}
	err = f.expect(ctx, before+count, 10*time.Second)
	lates, doubled := f.latencies()
	c.Latency, c.Repeated, c.Lost = percentiles(lates), doubled, before+count-f.total.Load()
	if err != nil {
		return []Case{c}, err
	}
	o.Progress("latency: the disk alone")
	err = disk.add(t.Dir, o.Rate, o.Duration/2)
	c.Disk, c.Sync = percentiles(disk.wait), percentiles(disk.syncs)
	return []Case{c}, err
}

// warm sends between the pairs as fast as it goes until the relay is as it is
// after a while: its log's files are in use for the second time, its memory has
// the size that the load asks for.
func (f *fleet) warm(ctx context.Context, senders []*sender) error {
	to := func(i int) client.Draft { return client.Draft{To: []string{f.peers[i^1].profile.DeviceID}} }
	n, err := load(ctx, 2*time.Second, senders, to)
	if err != nil {
		return err
	}
	if err := f.expect(ctx, n, 30*time.Second); err != nil {
		return err
	}
	f.rearm()
	for _, s := range senders {
		s.warmed, s.acked = s.acked, 0
	}
	select { // what is left to be deleted and written in the background
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Second):
		return nil
	}
}

func isDone(t *client.Ticket) bool {
	select {
	case <-t.Done():
		return true
	default:
		return false
	}
}

// fanout: one sender, one channel, every message stored and delivered to all
// members. Counted are deliveries.
func fanout(ctx context.Context, o Options, t *Target, f *fleet) ([]Case, error) {
	c := Case{Name: "fanout", Clients: o.Members, Bytes: o.Size, Unit: "deliveries/s"}
	if err := f.grow(ctx, o.Members+1); err != nil {
		return nil, err
	}
	const channel = 7
	members := make([]string, o.Members)
	for i, p := range f.peers[1:] {
		members[i] = p.profile.DeviceID
	}
	if err := f.peers[0].client.Join(ctx, channel, members...); err != nil {
		return nil, fmt.Errorf("joining the channel: %w", err)
	}
	s := newSender(f.peers[0], 0, o.Size, 4*o.Outstanding) // one sender has to keep all members busy
	draft := func(int) client.Draft { return client.Draft{Channel: channel} }
	o.Progress("fanout: warming up")
	if _, err := load(ctx, time.Second, []*sender{s}, draft); err != nil {
		return nil, err
	}
	if err := f.expect(ctx, s.acked*int64(o.Members), 30*time.Second); err != nil {
		return nil, err
	}
	before := f.total.Load()
	f.rearm()
	o.Progress("fanout: measuring")
	m, err := startMeter(t.PID)
	if err != nil {
		return nil, err
	}
	all, err := load(ctx, o.Duration, []*sender{s}, draft)
	if err != nil {
		return nil, err
	}
	if err := f.expect(ctx, all*int64(o.Members), 30*time.Second); err != nil {
		return nil, err
	}
	if err := m.stop(&c, f.total.Load()-before); err != nil {
		return nil, err
	}
	_, c.Repeated = f.latencies()
	return []Case{c}, nil
}

// rearm makes expect usable again.
func (f *fleet) rearm() {
	f.want.Store(0)
	f.reached, f.once = make(chan struct{}), sync.Once{}
}

// offline: messages for devices that are away, then their return.
func offline(ctx context.Context, o Options, t *Target, f *fleet) ([]Case, error) {
	in := Case{Name: "offline enqueue", Clients: o.Recipients, Bytes: o.Size, Unit: "msg/s"}
	out := Case{Name: "offline drain", Clients: o.Recipients, Bytes: o.Size, Unit: "msg/s"}
	const senders = 10
	if err := f.grow(ctx, o.Recipients+senders); err != nil {
		return nil, err
	}
	away := f.peers[:o.Recipients]
	var wg sync.WaitGroup
	for _, p := range away {
		wg.Go(p.close)
	}
	wg.Wait()
	o.Progress("offline: enqueueing")
	m, err := startMeter(t.PID)
	if err != nil {
		return nil, err
	}
	var sent atomic.Int64
	err = each(ctx, senders, senders, func(ctx context.Context, i int) error {
		s := newSender(f.peers[o.Recipients+i], uint32(i), o.Size, 256)
		for k := i; sent.Add(1) <= int64(o.Messages); k++ {
			to := away[k%len(away)].profile.DeviceID
			if err := s.send(ctx, client.Draft{To: []string{to}}, to); err != nil {
				return err
			}
		}
		return s.drain(ctx)
	})
	if err != nil {
		return nil, err
	}
	if err := m.stop(&in, int64(o.Messages)); err != nil {
		return nil, err
	}
	o.Progress("offline: draining")
	if m, err = startMeter(t.PID); err != nil {
		return nil, err
	}
	err = each(ctx, len(away), len(away), func(ctx context.Context, i int) error { return away[i].connect(ctx) })
	if err != nil {
		return nil, err
	}
	if err := f.expect(ctx, int64(o.Messages), 60*time.Second); err != nil {
		return nil, err
	}
	if err := m.stop(&out, int64(o.Messages)); err != nil {
		return nil, err
	}
	_, out.Repeated = f.latencies()
	return []Case{in, out}, nil
}

// connects: TLS, Noise and the stored session, again and again.
func connects(ctx context.Context, o Options, t *Target, f *fleet) ([]Case, error) {
	c := Case{Name: "connect", Clients: 32, Unit: "connects/s"}
	if err := f.grow(ctx, c.Clients); err != nil {
		return nil, err
	}
	for _, p := range f.peers {
		p.close()
	}
	o.Progress("connect: measuring")
	const parallel = 32
	var bare handshakes
	if err := bare.add(ctx, parallel, o.Duration/4); err != nil {
		return nil, err
	}
	m, err := startMeter(t.PID)
	if err != nil {
		return nil, err
	}
	var count atomic.Int64
	end := time.Now().Add(o.Duration)
	err = each(ctx, parallel, parallel, func(ctx context.Context, i int) error {
		for k := i; time.Now().Before(end); k += parallel {
			p := f.peers[k%c.Clients]
			p.store = client.NewMemoryStore([8]byte{byte(k), byte(k >> 8), byte(k >> 16), 1}) // no resume token: a full handshake
			if err := p.connect(ctx); err != nil {
				return err
			}
			p.close()
			count.Add(1)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := m.stop(&c, count.Load()); err != nil {
		return nil, err
	}
	if err := bare.add(ctx, parallel, o.Duration/4); err != nil {
		return nil, err
	}
	c.TLS = bare.each()
	return []Case{c}, nil
}

// keepAlives is the relay's keep-alive interval. Sessions that connected one after the
// other wake in the same order: a shorter time would see all of them or none.
const keepAlives = time.Minute

// idle: sessions that do nothing.
func idle(ctx context.Context, o Options, t *Target, f *fleet) ([]Case, error) {
	c := Case{Name: "idle", Clients: o.Sessions, Unit: "sessions"}
	if err := f.grow(ctx, 10); err != nil {
		return nil, err
	}
	before, err := usageOf(t.PID)
	if err != nil {
		return nil, err
	}
	o.Progress(fmt.Sprintf("idle: connecting %d sessions", o.Sessions))
	if err := f.grow(ctx, o.Sessions); err != nil {
		return nil, err
	}
	o.Progress("idle: waiting")
	if err := rest(ctx, t.PID, 2*o.Duration); err != nil {
		return nil, err
	}
	m, err := startMeter(t.PID)
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(max(o.Duration, keepAlives)):
	}
	if err := m.stop(&c, int64(o.Sessions)); err != nil {
		return nil, err
	}
	after, err := usageOf(t.PID)
	if err != nil {
		return nil, err
	}
	c.MemoryKiB = float64(after.rss-before.rss) / 1024 / float64(o.Sessions)
	c.CPUPercent = c.ServerCPU * float64(c.Count) / 1e6 / c.Seconds * 100
	c.Rate = 0 // they do nothing
	return []Case{c}, nil
}

// rest waits for least, and then until the process gives no memory back any more: a
// relay that has just connected thousands does so, in steps, for some seconds.
func rest(ctx context.Context, pid int, least time.Duration) error {
	const still, most = 25 * time.Second, 90 * time.Second // the steps are 20 s apart at last
	began, changed, lowest := time.Now(), time.Now(), int64(math.MaxInt64)
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for time.Since(began) < least || time.Since(changed) < still && time.Since(began) < most {
		u, err := usageOf(pid)
		if err != nil {
			return err
		}
		if u.rss < lowest-lowest/100 {
			lowest, changed = u.rss, time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
	return nil
}
