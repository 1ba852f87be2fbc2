package host

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
)

// remote is what the plugins of all kinds have in common.
type remote struct {
	p        *Process
	d        *wire.Plugin
	protocol uint32
}

func (r remote) Kind() sdk.Kind  { return r.d.SDKKind() }
func (r remote) Name() string    { return r.d.Name }
func (r remote) Version() string { return r.d.Version }
func (r remote) Summary() string { return r.d.Summary }

// Config is a struct made from the description: the same keys, types, defaults and
// bounds.
func (r remote) Config() any { return r.d.NewConfig() }

// open opens the plugin. References to files and secrets are resolved here, relative
// to the working directory, where the caller has not done so (sdk.Resolve).
func (r remote) open(ctx context.Context, env sdk.Env, raw map[string]any) (uint64, *wirepb.OpenReply, error) {
	p := r.p
	if err := p.Err(); err != nil {
		return 0, nil, err
	}
	if env == nil {
		env = p.o.env(r.Name())
	}
	raw, err := sdk.Resolve(r.Config(), raw, nil)
	if err != nil {
		return 0, nil, err
	}
	table, err := wire.FromTable(raw)
	if err != nil {
		return 0, nil, err
	}
	i := &instance{plugin: r.Name(), env: env, log: env.Log(), binds: make(chan struct{}, slots)}
	if i.log == nil {
		i.log = p.log
	}
	p.mu.Lock()
	p.last++
	id := p.last
	p.instances[id] = i
	p.mu.Unlock()
	reply, err := p.control.Open(ctx, &wirepb.OpenRequest{
		Plugin: r.Name(), Protocol: r.protocol, Instance: id, Config: table,
		State: []byte(env.State()), Cover: env.Cover() != nil, LogLevel: int32(level(i.log)),
	})
	if err == nil {
		err = wire.ToError(reply.Error)
	} else {
		err = p.callError(ctx, err)
	}
	if err != nil {
		p.forget(id)
		return 0, nil, err
	}
	return id, reply, nil
}

// Check asks what is wrong with a configuration of one of the process's plugins; nothing
// is opened, no file is touched and nobody is spoken to. Mistakes are an
// sdk.ConfigErrors. It is an error of kind Unsupported where the binary cannot be asked.
// References to files and secrets are resolved as for opening.
func (p *Process) Check(ctx context.Context, plugin sdk.Plugin, raw map[string]any) error {
	if !p.checks {
		return &sdk.Error{Kind: sdk.Unsupported, Op: "plugin " + plugin.Name(), Text: "its binary cannot check a configuration without opening it"}
	}
	n := slices.IndexFunc(p.description.Plugins, func(d PluginDescription) bool { return d.Kind == plugin.Kind() && d.Name == plugin.Name() })
	if n < 0 {
		return &sdk.Error{Kind: sdk.NotFound, Op: "plugin " + plugin.Name(), Text: "this binary has no such plugin"}
	}
	raw, err := sdk.Resolve(plugin.Config(), raw, nil)
	if err != nil {
		return err
	}
	table, err := wire.FromTable(raw)
	if err != nil {
		return err
	}
	reply, err := p.control.Open(ctx, &wirepb.OpenRequest{
		Plugin: plugin.Name(), Protocol: p.protocols[n], Config: table, Check: true,
	})
	if err != nil {
		return p.callError(ctx, err)
	}
	return wire.ToError(reply.Error)
}

// level is the lowest level that a logger takes.
func level(l *slog.Logger) slog.Level {
	for _, v := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if l.Enabled(context.Background(), v) {
			return v
		}
	}
	return math.MaxInt16
}

func (p *Process) forget(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.instances, id)
}

// shut closes an instance.
func (p *Process) shut(ctx context.Context, id uint64) error {
	defer p.forget(id)
	if p.Err() != nil {
		return nil
	}
	in := &wirepb.Instance{Instance: id}
	if d, ok := ctx.Deadline(); ok {
		in.LimitNanoseconds = max(1, int64(time.Until(d)))
	}
	r, err := p.control.Close(ctx, in)
	if err != nil {
		if p.Err() != nil {
			return nil
		}
		return p.callError(ctx, err)
	}
	return wire.ToError(r.Error)
}
