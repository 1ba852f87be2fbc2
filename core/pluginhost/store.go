package pluginhost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/commucat/commucat/core/metrics"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/ledger"
	"github.com/commucat/commucat/sdk/storage"
)

// backend is a storage or ledger whose value outlives its processes. T is what one
// process gives: storage.Store or ledger.Ledger.
type backend[T any] struct {
	h    *Host
	kind sdk.Kind
	sup  *supervisor
	open func(ctx context.Context, p *process, env sdk.Env, raw map[string]any) (T, error)
	shut func(ctx context.Context, v T) error

	upgrading sync.Mutex // so that bin is of what was started last

	mu   sync.Mutex
	spec Spec
	bin  *pinned
	past host.Stats
}

// start runs the first process and waits for it; after an error nothing runs.
func (b *backend[T]) start(ctx context.Context, s Spec) (*backendRun[T], error) {
	b.spec, b.bin = s, &pinned{h: b.h, kind: b.kind, name: s.Plugin}
	title := KindName(b.kind) + " " + s.Name
	p := b.h.pace
	if b.kind == sdk.Storage {
		p.start = cmp.Or(p.start, openLimit)
	}
	b.sup = &supervisor{
		name: title, log: b.h.opt.Log.With("plugin", s.Name), pace: p,
		drainLimit: func() time.Duration { return b.h.opt.Drain },
		moved:      func() { reportPhase(b.h.opt.Metrics, s.Name, b.sup.look().phase) },
		restarted:  func() { b.h.opt.Metrics.Count(metrics.PluginRestarts, s.Name) },
	}
	if err := b.h.add(b.kind, s.Name, b); err != nil {
		return nil, err
	}
	first := make(chan error, 1) // the start must not be repeated behind the caller's back
	begin := b.starter(s, b.bin)
	b.sup.launch(func(ctx context.Context, prev run) (run, error) {
		r, err := begin(ctx, prev)
		select {
		case first <- err:
		default:
		}
		return r, err
	})
	select {
	case err := <-first:
		if err != nil {
			b.leave()
			return nil, err
		}
	case <-ctx.Done():
		b.leave()
		return nil, context.Cause(ctx)
	}
	r, err := b.sup.wait(ctx)
	if err != nil {
		b.leave()
		return nil, err
	}
	return r.(*backendRun[T]), nil
}

// leave stops the backend and takes it out of the Host.
func (b *backend[T]) leave() {
	b.h.remove(b.kind, b.spec.Name, b)
	b.stop()
}

func (b *backend[T]) stop() {
	b.sup.stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bin.close()
}

func (b *backend[T]) starter(s Spec, bin *pinned) starter {
	return func(ctx context.Context, _ run) (run, error) {
		p, err := b.h.begin(ctx, b.kind, s, bin)
		if err != nil {
			return nil, err
		}
		r := &backendRun[T]{process: p, b: b, idle: make(chan struct{}, 1)}
		raw, err := p.raw(s)
		if err == nil {
			env := sdk.NewEnv(sdk.EnvOptions{Log: p.log, State: p.state, Listen: noListen, ListenPacket: noPacket, Degraded: r.setHealth})
			opening, done := b.sup.pace.attended(ctx, p.Ping)
			r.value, err = b.open(opening, p, env, raw)
			if err != nil && ctx.Err() == nil && opening.Err() != nil {
				err = &sdk.Error{Kind: sdk.Unavailable, Op: b.sup.name, Err: context.Cause(opening)}
			}
			done()
		}
		if err != nil {
			return nil, p.failed(err)
		}
		return r, nil
	}
}

// upgrade replaces the process by one of the binary that lies in the catalog now.
// Calls wait meanwhile.
func (b *backend[T]) upgrade(ctx context.Context, s Spec) error {
	b.upgrading.Lock()
	defer b.upgrading.Unlock()
	bin := &pinned{h: b.h, kind: b.kind, name: s.Plugin}
	if err := b.sup.upgrade(ctx, b.starter(s, bin)); err != nil {
		bin.close()
		return err
	}
	b.mu.Lock()
	old := b.bin
	b.spec, b.bin = s, bin
	b.mu.Unlock()
	old.close()
	return nil
}

func (b *backend[T]) state() State {
	v := b.sup.look()
	b.mu.Lock()
	s, past, bin := b.spec, b.past, b.bin
	b.mu.Unlock()
	st := State{Name: s.Name, Kind: KindName(b.kind), Plugin: s.Plugin}
	st.fill(v, bin.found())
	if r, ok := v.current.(*backendRun[T]); ok {
		if err := r.health(); err != nil {
			st.Degraded = err.Error()
		}
		st.Sandbox = r.items()
		past = sum(past, r.process.Stats())
	}
	st.counts(past)
	return st
}

// backendRun is one process of a backend.
type backendRun[T any] struct {
	*process
	b     *backend[T]
	value T
	once  sync.Once
	told  host.Stats

	mu       sync.Mutex
	calls    int
	leaving  bool
	idle     chan struct{} // one slot: no call runs
	degraded error
}

func (r *backendRun[T]) setHealth(reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.degraded = reason
}

func (r *backendRun[T]) health() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.degraded
}

func (r *backendRun[T]) serve() {}

func (r *backendRun[T]) Ping(ctx context.Context) error {
	err := r.process.Ping(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = reportStats(r.b.h.opt.Metrics, r.b.spec.Name, r.told, r.process.Stats())
	return err
}

// enter counts a call, unless the process is leaving.
func (r *backendRun[T]) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leaving {
		return false
	}
	r.calls++
	return true
}

func (r *backendRun[T]) exit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls--; r.calls == 0 && r.leaving {
		r.wake()
	}
}

func (r *backendRun[T]) wake() {
	select {
	case r.idle <- struct{}{}:
	default:
	}
}

// drain waits for the calls that run and closes the value.
func (r *backendRun[T]) drain(ctx context.Context) {
	r.mu.Lock()
	r.leaving = true
	if r.calls == 0 {
		r.wake()
	}
	r.mu.Unlock()
	select {
	case <-r.idle:
	case <-r.Done():
	case <-ctx.Done():
	}
	if err := r.b.shut(ctx, r.value); err != nil {
		r.log.Warn("plugin did not close in order", "error", err)
	}
}

func (r *backendRun[T]) close() {
	r.once.Do(func() {
		stats := r.process.Stats()
		r.process.Close()
		r.b.mu.Lock()
		defer r.b.mu.Unlock()
		r.b.past = sum(r.b.past, stats)
	})
}

// repeats is what a caller may do when a process ended under a call.
type repeats bool

const (
	// again: the call is made once more by the next process; it has the same effect.
	again repeats = true
	// once: what became of it is not known, and the caller is told so.
	once repeats = false
)

// do makes a call on the process that runs. While none does it waits, for CallWait at
// most; then the error has kind Unavailable.
func do[T, R any](ctx context.Context, b *backend[T], repeat repeats, f func(ctx context.Context, v T) (R, error)) (R, error) {
	var zero R
	limit, cancel := context.WithTimeoutCause(ctx, b.h.opt.CallWait, errors.New("it did not come back in time"))
	defer cancel()
	for {
		cur, err := b.sup.wait(limit)
		if err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return zero, err
		}
		r := cur.(*backendRun[T])
		if !r.enter() {
			if err := b.next(limit, cur); err != nil {
				return zero, err
			}
			continue
		}
		v, err := f(ctx, r.value)
		r.exit()
		if err == nil || r.Err() == nil || ctx.Err() != nil {
			return v, err
		}
		// The process has ended under the call.
		if !bool(repeat) || limit.Err() != nil {
			return zero, &sdk.Error{Kind: sdk.Unavailable, Op: b.sup.name, Text: "the plugin ended during the call", Err: r.Err()}
		}
		if err := b.next(limit, cur); err != nil {
			return zero, err
		}
	}
}

// next waits until cur is not current any more.
func (b *backend[T]) next(ctx context.Context, cur run) error {
	for {
		v := b.sup.look()
		if v.current != cur {
			return nil
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return &sdk.Error{Kind: sdk.Unavailable, Op: b.sup.name, Text: "the plugin is ending", Err: context.Cause(ctx)}
		}
	}
}

// Storage runs a storage as a process and opens it. The store's calls outlive the
// process: they wait for the next one. Calls that a process's end has interrupted are
// repeated where that has the same effect; Append is not, since the caller keeps the
// order of its batches. Close ends the process.
func (h *Host) Storage(ctx context.Context, s Spec) (storage.Store, storage.Traits, error) {
	b := &backend[storage.Store]{
		h: h, kind: sdk.Storage,
		open: func(ctx context.Context, p *process, env sdk.Env, raw map[string]any) (storage.Store, error) {
			return storage.Open(ctx, p.plugin, env, raw)
		},
		shut: func(ctx context.Context, v storage.Store) error {
			if v.Close == nil {
				return nil
			}
			return v.Close(ctx)
		},
	}
	first, err := b.start(ctx, s)
	if err != nil {
		return storage.Store{}, storage.Traits{}, err
	}
	return durableStore(b, first.value), storage.TraitsOf(first.plugin), nil
}

// Ledger runs a ledger as a process and opens it; its calls outlive the process like
// a storage's. forgets is what the plugin says of itself.
func (h *Host) Ledger(ctx context.Context, s Spec) (l ledger.Ledger, forgets bool, err error) {
	b := &backend[ledger.Ledger]{
		h: h, kind: sdk.Ledger,
		open: func(ctx context.Context, p *process, env sdk.Env, raw map[string]any) (ledger.Ledger, error) {
			return ledger.Open(ctx, p.plugin, env, raw)
		},
		shut: func(ctx context.Context, v ledger.Ledger) error { return v.Close(ctx) },
	}
	first, err := b.start(ctx, s)
	if err != nil {
		return nil, false, err
	}
	return lastingLedger{b}, ledger.Forgets(first.plugin), nil
}

// RetryBackends starts the storages and ledgers that are parked anew, as they were
// configured when the Host began. An error names those that stay parked.
func (h *Host) RetryBackends(ctx context.Context) error {
	var errs []error
	for _, s := range h.States() {
		kind := kinds()[s.Kind]
		if s.State != Parked || kind == sdk.Transport {
			continue
		}
		if err := h.UpgradeBackend(ctx, kind, s.Name); err != nil {
			errs = append(errs, fmt.Errorf("%s %s stays parked: %w", s.Kind, s.Name, err))
		}
	}
	return errors.Join(errs...)
}

// UpgradeBackend runs the binary of a storage or ledger that lies in the catalog now.
// It is an error of kind NotFound where none runs under the name.
func (h *Host) UpgradeBackend(ctx context.Context, kind sdk.Kind, name string) error {
	h.mu.Lock()
	u := h.units[KindName(kind)+" "+name]
	h.mu.Unlock()
	switch b := u.(type) {
	case *backend[storage.Store]:
		return b.upgrade(ctx, b.spec)
	case *backend[ledger.Ledger]:
		return b.upgrade(ctx, b.spec)
	}
	return &sdk.Error{Kind: sdk.NotFound, Text: "no " + KindName(kind) + " " + name + " runs as a plugin"}
}
