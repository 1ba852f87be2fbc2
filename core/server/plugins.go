package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/commucat/commucat/core/admission"
	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/link"
	"github.com/commucat/commucat/sdk/transport"
)

// warmUp is how long a starting relay waits for its transports' processes, so that
// the first invitation names them; what takes longer follows by itself.
const warmUp = 500 * time.Millisecond

// inviteLimit is how long one transport may take to say how a client reaches it.
const inviteLimit = 3 * time.Second

// transports are the transports that plugin processes serve, by configured name.
type transports struct {
	mu  sync.Mutex
	all map[string]*pluginhost.Transport
	// leaving are those being drained after they were taken out.
	leaving sync.WaitGroup
	// telling are the transports that are being told of revocations, handingAll those
	// that are handed the keys of all devices.
	telling, handingAll rounds
	// handing has a *sync.RWMutex for each name; see Server.handing.
	handing sync.Map
	// damaged has the ids of devices whose record the log was told cannot be read.
	damaged sync.Map
}

// openHost makes what runs plugin processes; nothing is started yet.
func (s *Server) openHost(context.Context) (err error) {
	s.transports.all = map[string]*pluginhost.Transport{}
	if s.revocations, err = openRevocations(s.data.path(revocationsFile)); err != nil {
		return err
	}
	if s.opt.Catalog == nil {
		s.opt.Catalog = pluginhost.NewCatalog()
	}
	s.host = pluginhost.New(pluginhost.Options{
		Catalog: s.opt.Catalog, State: s.data.path(stateDir), Accept: s.acceptPlugin, Move: s.movePlugin,
		Changed: s.transportChanged, Drain: s.cfg.Server.Drain, Log: s.log, Metrics: s.metrics,
	})
	s.onClose(func(context.Context) error {
		s.host.Close()
		s.transports.leaving.Wait()
		return nil
	})
	if !s.needsFolders() {
		return nil
	}
	return s.openFolders()
}

// openFolders lets a plugin's own user reach its folder below the data folder. What
// belongs to somebody else is theirs to open: the plugin's error names it.
func (s *Server) openFolders() error {
	if os.Geteuid() != 0 {
		return nil
	}
	for _, dir := range []string{s.data.dir, s.data.path(stateDir)} {
		var st syscall.Stat_t
		if err := syscall.Stat(dir, &st); err == nil && st.Uid != 0 {
			continue
		}
		if err := os.Chmod(dir, 0o711); err != nil {
			return fmt.Errorf("data folder %s cannot be opened for plugins: %w", dir, reason(err))
		}
	}
	return nil
}

// needsFolders says that the configuration names a plugin process.
func (s *Server) needsFolders() bool {
	if len(s.wanted(s.cfg)) > 0 {
		return true
	}
	for _, name := range []string{s.cfg.Storage.Backend, s.cfg.Storage.Volatile} {
		if s.opt.plugin(sdk.Storage, name) == nil {
			return true
		}
	}
	return slices.ContainsFunc(s.cfg.Ledger.Backends, func(n string) bool { return s.opt.plugin(sdk.Ledger, n) == nil })
}

// wanted are the transports of a configuration that plugin processes serve.
func (s *Server) wanted(cfg *config.Config) map[string]pluginhost.TransportSpec {
	out := map[string]pluginhost.TransportSpec{}
	for name, t := range cfg.Transports {
		if t.Enabled && !slices.Contains(s.opt.BuiltIn, name) {
			out[name] = pluginhost.TransportSpec{Spec: s.pluginSpec(cfg, sdk.Transport, name, cfg.PluginOf(name)), Cover: s.cover}
		}
	}
	return out
}

// pluginSpec is what the configuration says of one plugin process.
func (s *Server) pluginSpec(cfg *config.Config, kind sdk.Kind, name, plugin string) pluginhost.Spec {
	p := cfg.Process(plugin)
	paths := func(list []config.Path) (out []string) {
		for _, e := range list {
			out = append(out, string(e))
		}
		return out
	}
	return pluginhost.Spec{
		Name: name, Plugin: plugin, Raw: cfg.Keys(kind, name), Files: cfg.Files(s.opt.Environment),
		Settings: pluginhost.Settings{BestEffort: p.Sandbox == "best-effort", Memory: uint64(p.Memory), Read: paths(p.Read), Write: paths(p.Write)},
	}
}

// openTransports starts the processes and waits a moment for them. One that does not
// come up keeps nobody from starting.
func (s *Server) openTransports(ctx context.Context) error {
	if s.opt.Prepare {
		return nil
	}
	for name, spec := range s.wanted(s.cfg) {
		if err := s.addTransport(name, spec); err != nil {
			return err
		}
	}
	limit, cancel := context.WithTimeout(ctx, warmUp)
	defer cancel()
	for _, t := range s.running() {
		_ = t.Wait(limit) // why not is in the log, and in what the operator asks for
	}
	return nil
}

func (s *Server) addTransport(name string, spec pluginhost.TransportSpec) error {
	t, err := s.host.Transport(spec)
	if err != nil {
		return err
	}
	s.transports.mu.Lock()
	s.transports.all[name] = t
	s.transports.mu.Unlock()
	s.tellRevoked(t) // it may have been ready before it was known here
	s.handAll(t)
	return nil
}

// running are the plugin transports, by name.
func (s *Server) running() []*pluginhost.Transport {
	s.transports.mu.Lock()
	defer s.transports.mu.Unlock()
	out := make([]*pluginhost.Transport, 0, len(s.transports.all))
	for _, name := range slices.Sorted(maps.Keys(s.transports.all)) {
		out = append(out, s.transports.all[name])
	}
	return out
}

// acceptPlugin charges a connection and runs its session. The address is the
// plugin's word: it can use up that transport's budget alone.
func (s *Server) acceptPlugin(c *pluginhost.Conn) {
	defer c.Close()
	f := c.Path()
	ticket, err := s.gate.Admit(admission.Source{
		Transport: f.Transport, Addr: f.Remote.Addr(), Circuit: f.Circuit, Hidden: f.Hidden || f.Circuit != "", Claimed: true,
	})
	if err != nil {
		return
	}
	defer ticket.Release()
	if socket, ok := c.Conn.(syscall.Conn); ok {
		if raw, err := socket.SyscallConn(); err == nil {
			ticket.SetSocket(raw)
			defer ticket.SetSocket(nil)
		}
	}
	c.SetContext(admission.NewContext(context.Background(), ticket))
	s.metrics.Count(metrics.AcceptedConnections, f.Transport)
	s.sessions.Serve(c)
}

// movePlugin asks the sessions of a process that is leaving to dial again.
func (s *Server) movePlugin(match func(*pluginhost.Conn) bool) {
	within := min(s.cfg.Server.Drain/2, 5*time.Second)
	to := s.endpoints(context.Background(), transport.Guest{})
	s.sessions.Move(func(c net.Conn) bool {
		p, ok := c.(*pluginhost.Conn)
		return ok && match(p)
	}, ccp.Move{Reason: ccp.MoveUpgrade, WithinMS: uint32(within / time.Millisecond), Endpoints: to[:min(len(to), ccp.MaxEndpoints)]})
}

// transportChanged tells log and listeners.
func (s *Server) transportChanged(r pluginhost.Reachable) {
	switch {
	case r.Address != "":
		s.degraded.Delete("transport " + r.Transport)
		s.log.Info("transport ready", "transport", r.Transport, "address", r.Address)
		for _, t := range s.running() {
			if t.Name() == r.Transport {
				s.tellRevoked(t)
				s.handAll(t)
			}
		}
	case s.stopping.Load() || s.transportNamed(r.Transport) == nil: // as it was told
	default:
		err := r.Err
		if err == nil {
			err = errors.New("it does not run")
		}
		s.degraded.Store("transport "+r.Transport, err)
		s.log.Warn("transport not ready", "transport", r.Transport, "reason", err)
	}
	s.ways.outdated()
	s.knownWays() // asks, so that the first device is told as well
	if s.opt.OnTransport != nil {
		s.opt.OnTransport(r)
	}
}

// pluginEndpoints are how the ready plugin transports are reached from outside.
func (s *Server) pluginEndpoints(ctx context.Context, g transport.Guest, only ...string) []link.Endpoint {
	host := s.publicHost()
	var ask []inviter
	for _, t := range s.running() {
		if wanted(t.Name(), only) {
			ask = append(ask, t)
		}
	}
	return s.invitations(ctx, ask, host, g)
}

// inviter is a *pluginhost.Transport.
type inviter interface {
	Name() string
	Invite(ctx context.Context, host string, g transport.Guest) (transport.Endpoint, error)
}

// invitations asks all beside each other, so that a slow one takes nothing from the
// others.
func (s *Server) invitations(ctx context.Context, all []inviter, host string, g transport.Guest) (out []link.Endpoint) {
	found, group := make([]*link.Endpoint, len(all)), sync.WaitGroup{}
	for i, t := range all {
		group.Go(func() { found[i] = s.invitation(ctx, t, host, g) })
	}
	group.Wait()
	for _, e := range found {
		if e != nil {
			out = append(out, *e)
		}
	}
	return out
}

// invitation is one of them, nil if the transport cannot be offered or takes too
// long to say how it is reached.
func (s *Server) invitation(ctx context.Context, t inviter, host string, g transport.Guest) *link.Endpoint {
	ctx, cancel := context.WithTimeout(ctx, inviteLimit)
	defer cancel()
	e, err := t.Invite(ctx, host, g)
	if err != nil {
		if !errors.Is(err, sdk.Unavailable) {
			s.log.Warn("a transport gives no invitation", "transport", t.Name(), "error", err)
		}
		return nil
	}
	named := link.Endpoint{Transport: e.Transport, Host: e.Host, Port: e.Port, Params: ccp.ParamsOf(e.Params)}
	if err := named.Check(); err != nil {
		s.log.Warn("a transport's invitation cannot be put into a link", "transport", t.Name(), "error", err)
		return nil
	}
	return &named
}

// publicHost is the name or address under which clients reach this relay.
func (s *Server) publicHost() string {
	if at := s.addresses(); len(at) > 0 {
		return at[0].host
	}
	return string(s.cfg.Server.Domain)
}

// revokeGuest ends what the transports allowed to a link.
func (s *Server) revokeGuest(id string) {
	var names []string
	for name := range s.cfg.Transports { // also those that are disabled for a while
		if !slices.Contains(s.opt.BuiltIn, name) {
			names = append(names, name)
		}
	}
	for _, t := range s.running() {
		if !slices.Contains(names, t.Name()) {
			names = append(names, t.Name())
		}
	}
	s.revokeAt(names, id, "")
}

// revokeAt ends what transports allowed under an id, a key's of a slot ("": a link's). What
// a transport cannot be told now it is told when it is ready again, also by a later start.
func (s *Server) revokeAt(names []string, id, slot string) {
	s.noteRevoked(names, id, slot)
	s.tellRevokedAt(names)
}

// mayKnow says that a transport may know guests on this node: it runs or is configured, or
// its state folder is left. Of several nodes not all need to have all transports.
func (s *Server) mayKnow(name string) bool {
	if _, configured := s.cfg.Transports[name]; configured || s.transportNamed(name) != nil {
		return true
	}
	_, err := os.Stat(s.data.path(stateDir, pluginhost.KindName(sdk.Transport)+"-"+name))
	return !errors.Is(err, fs.ErrNotExist)
}

// noteRevoked puts on the disk what transports have to be told.
func (s *Server) noteRevoked(names []string, id, slot string) {
	forgotten, err := s.revocations.add(names, id, slot)
	if err != nil {
		s.log.Error("a revocation is not on disk, a transport that is away now may miss it", "error", err)
	}
	if forgotten {
		s.log.Error("too many revocations wait for a transport, the oldest were forgotten")
	}
}

// tellRevokedAt is tellRevoked for the transports that run.
func (s *Server) tellRevokedAt(names []string) {
	for _, t := range s.running() {
		if slices.Contains(names, t.Name()) {
			s.tellRevoked(t)
		}
	}
}

// tellRevoked tells a transport what it has missed, in the background.
func (s *Server) tellRevoked(t *pluginhost.Transport) { s.transports.telling.run(t, s.tellOnce) }

// rounds do something for each transport in the background, one goroutine a transport: what
// comes while it is at work it finds in its next round.
type rounds struct {
	mu sync.Mutex
	// again says that another round is due after the one that runs.
	again map[*pluginhost.Transport]bool
}

func (r *rounds) run(t *pluginhost.Transport, once func(*pluginhost.Transport)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, works := r.again[t]
	if r.again == nil {
		r.again = map[*pluginhost.Transport]bool{}
	}
	r.again[t] = true
	if !works {
		go func() {
			for r.due(t) {
				once(t)
			}
		}()
	}
}

func (r *rounds) due(t *pluginhost.Transport) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.again[t] {
		delete(r.again, t)
		return false
	}
	r.again[t] = false
	return true
}

func (s *Server) tellOnce(t *pluginhost.Transport) {
	r := s.revocations
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	mu := s.handing(t.Name())
	mu.RLock()
	defer mu.RUnlock()
	var told []string
	for _, id := range r.of(t.Name()) {
		if err := t.Revoke(ctx, id); err != nil {
			if errors.Is(err, sdk.Unavailable) {
				break
			}
			s.log.Error("a transport did not revoke; it will be told again", "transport", t.Name(), "error", err)
			continue
		}
		told = append(told, id)
	}
	if err := r.done(t.Name(), told); err != nil {
		s.log.Error("a transport will be told of revocations again", "transport", t.Name(), "error", err)
	}
}

// reloadTransports applies the difference: what was added, removed or changed. What
// is the same is not touched, unless it is parked: that is tried again. An error names
// the transports that stay as they were.
func (s *Server) reloadTransports(ctx context.Context, next *config.Config) error {
	wanted := s.wanted(next)
	var errs []error
	for _, t := range s.running() {
		spec, stays := wanted[t.Name()]
		if !stays {
			s.transports.mu.Lock()
			delete(s.transports.all, t.Name())
			s.transports.mu.Unlock()
			s.degraded.Delete("transport " + t.Name())
			s.transports.leaving.Go(t.Stop)
			continue
		}
		delete(wanted, t.Name())
		parked := t.Parked()
		if sameSpec(t.Spec(), spec) && !parked {
			continue
		}
		if err := s.upgradeTransport(ctx, t, spec); err != nil {
			text := "stays as it was"
			if parked {
				text = "stays parked"
			}
			errs = append(errs, fmt.Errorf("transport %s %s: %w", t.Name(), text, err))
		}
	}
	errs = append(errs, s.host.RetryBackends(ctx))
	if len(wanted) > 0 { // the first ones may come by a reload
		errs = append(errs, s.openFolders())
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		errs = append(errs, s.addTransport(name, wanted[name]))
	}
	return errors.Join(errs...)
}

// upgradeTransport runs another process, which may know less than the one before.
func (s *Server) upgradeTransport(ctx context.Context, t *pluginhost.Transport, spec pluginhost.TransportSpec) error {
	if err := t.Upgrade(ctx, spec); err != nil {
		return err
	}
	s.tellRevoked(t)
	s.handAll(t)
	return nil
}

func sameSpec(a, b pluginhost.TransportSpec) bool {
	return a.Plugin == b.Plugin && reflect.DeepEqual(a.Settings, b.Settings) && reflect.DeepEqual(config.Bare(a.Raw), config.Bare(b.Raw))
}

// UpgradePlugin runs what lies in the catalog now: a transport by its configured name,
// or a storage or ledger. It and what follows a Reload wait for each other.
func (s *Server) UpgradePlugin(ctx context.Context, name string) error {
	if err := s.turn(ctx); err != nil {
		return err
	}
	defer s.pass()
	for _, t := range s.running() {
		if t.Name() == name {
			return s.upgradeTransport(ctx, t, t.Spec())
		}
	}
	for _, kind := range []sdk.Kind{sdk.Storage, sdk.Ledger} {
		if err := s.host.UpgradeBackend(ctx, kind, name); !errors.Is(err, sdk.NotFound) {
			return err
		}
	}
	return &sdk.Error{Kind: sdk.NotFound, Text: fmt.Sprintf("no plugin process is configured under the name %q", name)}
}

// probeTransport asks a plugin transport whether a client would get through.
func (s *Server) probeTransport(ctx context.Context, name string) error {
	for _, t := range s.running() {
		if t.Name() == name {
			return t.Probe(ctx)
		}
	}
	return &sdk.Error{Kind: sdk.NotFound, Text: fmt.Sprintf("no plugin process is configured under the name %q", name)}
}
