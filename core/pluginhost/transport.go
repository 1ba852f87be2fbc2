package pluginhost

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/transport"
)

// TransportSpec is a Spec of a transport.
type TransportSpec struct {
	Spec
	// Cover is the site that the plugin may show; nil lends none.
	Cover http.Handler
}

// Transport is a configured transport that a plugin process serves. It outlives its
// processes.
type Transport struct {
	h       *Host
	name    string
	sockets *sockets
	sup     *supervisor

	mu   sync.Mutex
	spec TransportSpec
	bin  *pinned
	past host.Stats // of processes that have ended

	telling sync.Mutex
	up      bool

	upgrading sync.Mutex // so that spec and bin are of what was started last
}

// Transport starts a transport and returns at once; Wait tells what came of it.
func (h *Host) Transport(s TransportSpec) (*Transport, error) {
	t := &Transport{h: h, name: s.Name, sockets: newSockets(), spec: s, bin: &pinned{h: h, kind: sdk.Transport, name: s.Plugin}}
	t.sup = &supervisor{
		name: "transport " + s.Name, log: h.opt.Log.With("plugin", s.Name), beside: true, pace: h.pace,
		drainLimit: func() time.Duration { return h.opt.Drain }, moved: t.refresh,
		restarted: func() { h.opt.Metrics.Count(metrics.PluginRestarts, s.Name) },
	}
	if err := h.add(sdk.Transport, s.Name, t); err != nil {
		return nil, err
	}
	t.sup.launch(t.starter(s, t.bin))
	return t, nil
}

// Name is the configured name.
func (t *Transport) Name() string { return t.name }

// Wait returns when the transport can be offered to clients, or says why it cannot
// when ctx ends or the plugin is parked.
func (t *Transport) Wait(ctx context.Context) error {
	for {
		r, err := t.sup.wait(ctx)
		if err != nil {
			return err
		}
		changed, reason := r.(*transportRun).health()
		if reason == nil {
			return nil
		}
		select {
		case <-changed:
		case <-r.Done():
		case <-ctx.Done():
			return &sdk.Error{Kind: sdk.Unavailable, Op: t.sup.name, Err: reason}
		}
	}
}

// Addr is where the transport listens, nil while it cannot be offered to clients.
func (t *Transport) Addr() net.Addr {
	if r := t.ready(); r != nil {
		return r.ln.Addr()
	}
	return nil
}

// ready is the process that serves, if the transport can be offered.
func (t *Transport) ready() *transportRun {
	r, _ := t.sup.look().current.(*transportRun)
	if r == nil {
		return nil
	}
	if _, reason := r.health(); reason != nil {
		return nil
	}
	return r
}

// Process stands for the process that serves, nil while the transport cannot be offered.
// Another value, by ==, is another process, which may be reached otherwise.
func (t *Transport) Process() any {
	if r := t.ready(); r != nil {
		return r
	}
	return nil
}

// Invite answers how a client gets here: what the plugin says, or host and port. The
// endpoint carries the configured name. It is an error of kind Unavailable while the
// transport cannot be offered.
func (t *Transport) Invite(ctx context.Context, host string, g transport.Guest) (transport.Endpoint, error) {
	r := t.ready()
	if r == nil {
		return transport.Endpoint{}, &sdk.Error{Kind: sdk.Unavailable, Op: t.sup.name, Text: "it is not ready"}
	}
	var e transport.Endpoint
	if s, ok := r.ln.(transport.Server); ok {
		var err error
		if e, err = s.Invite(ctx, host, g); err != nil {
			return transport.Endpoint{}, err
		}
	} else {
		e = transport.Endpoint{Host: host, Port: transport.AddrPort(r.ln.Addr()).Port()}
	}
	e.Transport = t.name
	return e, nil
}

// Revoke ends what Invite allowed. It is an error of kind Unavailable while no process
// can be told: the caller must repeat it then.
func (t *Transport) Revoke(ctx context.Context, id string) error {
	r, _ := t.sup.look().current.(*transportRun)
	if r == nil {
		return &sdk.Error{Kind: sdk.Unavailable, Op: t.sup.name, Text: "no process runs"}
	}
	if s, ok := r.ln.(transport.Server); ok {
		return s.Revoke(ctx, id)
	}
	return nil
}

// Keyed says that the devices of this transport have keys of their own, as far as a
// process that runs can be asked.
func (t *Transport) Keyed() bool {
	r, _ := t.sup.look().current.(*transportRun)
	return r != nil && transport.DescriptorOf(r.plugin).DeviceKeys
}

// Registers says that the process that runs wants to be handed the keys of devices.
func (t *Transport) Registers() bool {
	r, _ := t.sup.look().current.(*transportRun)
	if r == nil {
		return false
	}
	_, ok := r.ln.(transport.Registrar)
	return ok
}

// Register hands keys of devices to the process that runs, at most
// transport.MaxRegister. It is an error of kind Unavailable while none runs.
func (t *Transport) Register(ctx context.Context, guests []transport.Guest) error {
	r, _ := t.sup.look().current.(*transportRun)
	if r == nil {
		return &sdk.Error{Kind: sdk.Unavailable, Op: t.sup.name, Text: "no process runs"}
	}
	if s, ok := r.ln.(transport.Registrar); ok {
		return s.Register(ctx, guests)
	}
	return nil
}

// Replacing says that the keys of all devices are about to be registered, and Replaced that
// they were: the process that runs forgets the others then, where it keeps any. Replaced is
// an error of kind Invalid where another process than that of Replacing runs.
func (t *Transport) Replacing(ctx context.Context) error {
	return t.whole(ctx, transport.Replacer.Replacing)
}

// Replaced ends what Replacing began.
func (t *Transport) Replaced(ctx context.Context) error {
	return t.whole(ctx, transport.Replacer.Replaced)
}

func (t *Transport) whole(ctx context.Context, tell func(transport.Replacer, context.Context) error) error {
	r, _ := t.sup.look().current.(*transportRun)
	if r == nil {
		return &sdk.Error{Kind: sdk.Unavailable, Op: t.sup.name, Text: "no process runs"}
	}
	if s, ok := r.ln.(transport.Replacer); ok {
		return tell(s, ctx)
	}
	return nil
}

// Probe asks the plugin whether a client would get through.
func (t *Transport) Probe(ctx context.Context) error {
	r, _ := t.sup.look().current.(*transportRun)
	if r == nil {
		v := t.sup.look()
		return &sdk.Error{Kind: sdk.Unavailable, Op: t.sup.name, Text: "it is " + string(v.phase), Err: v.err}
	}
	if _, reason := r.health(); reason != nil {
		return reason
	}
	return r.opened.Probe(ctx)
}

// Upgrade runs the binary that lies in the catalog now, with the spec given, beside
// what runs; that is drained once the new process serves. After an error nothing has
// changed.
func (t *Transport) Upgrade(ctx context.Context, s TransportSpec) error {
	t.upgrading.Lock()
	defer t.upgrading.Unlock()
	bin := &pinned{h: t.h, kind: sdk.Transport, name: s.Plugin}
	err := t.sup.upgrade(ctx, t.starter(s, bin))
	if err != nil {
		bin.close()
		return err
	}
	t.mu.Lock()
	old := t.bin
	t.spec, t.bin = s, bin
	t.mu.Unlock()
	old.close()
	return nil
}

// Parked says that the transport was given up until somebody acts; Upgrade does.
func (t *Transport) Parked() bool { return t.sup.look().phase == Parked }

// Spec is what runs, or shall.
func (t *Transport) Spec() TransportSpec {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.spec
}

// Stop drains the transport and takes it out of the Host.
func (t *Transport) Stop() {
	t.h.remove(sdk.Transport, t.name, t)
	t.stop()
}

func (t *Transport) stop() {
	// First, so that who takes the port over need not wait for the last stream.
	t.sockets.close()
	t.sup.stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bin.close()
}

// starter makes a process that listens.
func (t *Transport) starter(s TransportSpec, bin *pinned) starter {
	return func(ctx context.Context, prev run) (run, error) {
		p, err := t.h.begin(ctx, sdk.Transport, s.Spec, bin)
		if err != nil {
			return nil, err
		}
		r := &transportRun{process: p, t: t, changed: make(chan struct{}), over: make(chan struct{})}
		if err := r.open(ctx, s, prev); err != nil {
			if r.lender != nil {
				r.lender.back()
			}
			return nil, p.failed(err)
		}
		return r, nil
	}
}

// refresh tells of a change, once each.
func (t *Transport) refresh() {
	t.telling.Lock()
	defer t.telling.Unlock()
	v := t.sup.look()
	if v.phase == Parked {
		t.sockets.reset()
	}
	t.report(v)
	r := t.ready()
	if up := r != nil; up != t.up {
		t.up = up
		change := Reachable{Transport: t.name}
		switch {
		case up:
			change.Address = r.ln.Addr().String()
		case v.err != nil:
			change.Err = v.err
		}
		if cur, ok := v.current.(*transportRun); ok && !up {
			_, change.Err = cur.health()
		}
		t.h.opt.Changed(change)
	}
}

// report sets the gauges.
func (t *Transport) report(v snapshot) {
	m := t.h.opt.Metrics
	reportPhase(m, t.name, v.phase)
	m.Label(metrics.TransportUp, t.name, number(t.ready() != nil))
}

// transportRun is one process that listens.
type transportRun struct {
	*process
	t      *Transport
	opened transport.Opened
	ln     net.Listener
	lender *lender
	once   sync.Once
	told   host.Stats // what the metrics know; of report alone

	mu       sync.Mutex
	degraded error
	changed  chan struct{}
	ending   bool
	err      error
	over     chan struct{}
	ended    bool
}

// open reads the configuration and listens. Where both use packet sockets, what ran
// before goes first: two readers would take each other's packets.
func (r *transportRun) open(ctx context.Context, s TransportSpec, prev run) error {
	raw, err := r.raw(s.Spec)
	if err != nil {
		return err
	}
	cfg := r.plugin.Config()
	if err := sdk.Decode(raw, nil, cfg); err != nil {
		return err
	}
	r.lender = r.t.sockets.lend(claimsOf(r.entry.Needs, cfg))
	env := sdk.NewEnv(sdk.EnvOptions{
		Log: r.log, State: r.state, Listen: r.lender.listen, ListenPacket: r.lender.packet, Degraded: r.setHealth, Cover: r.cover(s),
	})
	if r.opened, err = transport.Open(ctx, r.plugin, env, raw); err != nil {
		return err
	}
	if before, ok := prev.(*transportRun); ok && r.entry.granted(transport.UDPPort) && before.lender.datagrams() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.t.h.opt.Drain)
		before.drain(limit)
		cancel()
		before.close()
		// The start's own time begins now.
		var again context.CancelFunc
		ctx, again = context.WithTimeout(context.WithoutCancel(ctx), r.t.h.pace.starts())
		defer again()
	}
	r.ln, err = r.opened.Listen(ctx)
	return err
}

func (r *transportRun) cover(s TransportSpec) http.Handler {
	if r.entry.granted(transport.CoverSite) {
		return s.Cover
	}
	return nil
}

// setHealth is Env.Degraded.
func (r *transportRun) setHealth(reason error) {
	r.mu.Lock()
	if (r.degraded == nil) == (reason == nil) && (reason == nil || reason.Error() == r.degraded.Error()) {
		r.mu.Unlock()
		return
	}
	r.degraded = reason
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if reason != nil {
		r.log.Warn("transport is degraded", "reason", reason)
	}
	r.t.refresh()
}

func (r *transportRun) health() (<-chan struct{}, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed, r.degraded
}

// serve takes connections.
func (r *transportRun) serve() {
	r.lender.settle()
	go r.follow()
	go func() {
		defer r.ln.Close()
		select {
		case <-r.t.h.serving:
		case <-r.over:
			return
		}
		for {
			c, err := r.ln.Accept()
			if err != nil {
				r.fail(err)
				return
			}
			go r.t.h.opt.Accept(newConn(c, r.t.name, r))
		}
	}()
}

// follow waits for the process's end.
func (r *transportRun) follow() {
	select {
	case <-r.process.Done():
		r.fail(r.process.Err())
	case <-r.over:
	}
}

// fail ends the run: the process has ended, or its listener has.
func (r *transportRun) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || r.ending && r.process.Err() == nil {
		return
	}
	if errors.Is(err, net.ErrClosed) {
		err = &sdk.Error{Kind: sdk.Unavailable, Op: r.t.sup.name, Text: "it stopped listening"}
	}
	r.ended, r.err = true, err
	close(r.over)
}

// Done is closed when nothing more can come.
func (r *transportRun) Done() <-chan struct{} { return r.over }

// Err says why.
func (r *transportRun) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Ping asks the process, and is the moment at which counts are taken over.
func (r *transportRun) Ping(ctx context.Context) error {
	err := r.process.Ping(ctx)
	r.count(r.process.Stats())
	return err
}

// count carries the process's counts to the metrics.
func (r *transportRun) count(s host.Stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = reportStats(r.t.h.opt.Metrics, r.t.name, r.told, s)
}

// drain lets nobody in and waits until nobody needs the process.
func (r *transportRun) drain(ctx context.Context) {
	r.mu.Lock()
	r.ending = true
	r.mu.Unlock()
	if move := r.t.h.opt.Move; move != nil {
		move(func(c *Conn) bool { return c.from == r && !c.bare() })
	}
	if err := r.process.Drain(ctx); err != nil {
		r.log.Warn("plugin did not drain in time", "pid", r.PID(), "error", err)
	}
}

func (r *transportRun) close() {
	r.once.Do(func() {
		r.mu.Lock()
		r.ending = true
		if !r.ended {
			r.ended = true
			close(r.over)
		}
		r.mu.Unlock()
		stats := r.process.Stats()
		r.count(stats)
		r.process.Close()
		r.lender.back()
		r.t.mu.Lock()
		r.t.past = sum(r.t.past, stats)
		r.t.mu.Unlock()
	})
}

func (t *Transport) state() State {
	v := t.sup.look()
	t.mu.Lock()
	s, past, bin := t.spec, t.past, t.bin
	t.mu.Unlock()
	st := State{Name: t.name, Kind: KindName(sdk.Transport), Plugin: s.Plugin}
	st.fill(v, bin.found())
	if r, ok := v.current.(*transportRun); ok {
		if _, reason := r.health(); reason != nil {
			st.Degraded = reason.Error()
		}
		st.Address, st.Sandbox = r.ln.Addr().String(), r.items()
		stats := r.process.Stats()
		past = sum(past, stats)
		st.Streams, st.Sockets = stats.Pumped, stats.Sockets
	}
	st.counts(past)
	return st
}
