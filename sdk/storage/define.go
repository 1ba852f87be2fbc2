package storage

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/commucat/commucat/sdk"
)

// Descriptor is what a storage plugin says of itself before it is opened.
type Descriptor struct {
	Name, Version, Summary string
	Traits                 Traits
}

// Define makes a storage plugin. open receives the decoded configuration (C is a
// struct whose tags describe it, see sdk.Fields) and returns a store that is
// ready to use or an error of one line that says what to do. Migrations have run
// when it returns; ctx bounds the opening alone.
func Define[C any](d Descriptor, open func(context.Context, sdk.Env, C) (Store, error)) sdk.Plugin {
	return &definition[C]{d, open}
}

type definition[C any] struct {
	Descriptor
	open func(context.Context, sdk.Env, C) (Store, error)
}

func (d *definition[C]) Kind() sdk.Kind  { return sdk.Storage }
func (d *definition[C]) Name() string    { return d.Descriptor.Name }
func (d *definition[C]) Version() string { return d.Descriptor.Version }
func (d *definition[C]) Summary() string { return d.Descriptor.Summary }
func (d *definition[C]) Traits() Traits  { return d.Descriptor.Traits }

func (d *definition[C]) Config() any {
	c := new(C)
	sdk.Defaults(c)
	return c
}

// Open implements Opener.
func (d *definition[C]) Open(ctx context.Context, env sdk.Env, raw map[string]any) (Store, error) {
	var c C
	if err := sdk.Decode(raw, nil, &c); err != nil {
		return Store{}, err
	}
	s, err := d.open(ctx, quiet(env), c)
	if err != nil {
		return Store{}, fmt.Errorf("storage %s: %w", d.Name(), err)
	}
	return s, nil
}

// Opener is a storage plugin as Open needs it. Define's plugins implement it, and
// so does whatever stands for a plugin in another process.
type Opener interface {
	sdk.Plugin
	Traits() Traits
	Open(ctx context.Context, env sdk.Env, raw map[string]any) (Store, error)
}

// Open opens a storage plugin with its raw configuration table (values as sdk.Decode
// takes them). env may be nil. Mistakes in the table are an sdk.ConfigErrors.
func Open(ctx context.Context, p sdk.Plugin, env sdk.Env, raw map[string]any) (Store, error) {
	o, ok := p.(Opener)
	if !ok {
		return Store{}, &Error{Kind: sdk.Invalid, Text: fmt.Sprintf("plugin %q is no storage", p.Name())}
	}
	return o.Open(ctx, quiet(env), raw)
}

// TraitsOf are a storage plugin's traits with unset numbers made 1.
func TraitsOf(p sdk.Plugin) Traits {
	t := Traits{}
	if o, ok := p.(Opener); ok {
		t = o.Traits()
	}
	t.Batch, t.Lanes = max(t.Batch, 1), max(t.Lanes, 1)
	return t
}

// quiet replaces a missing Env.
func quiet(env sdk.Env) sdk.Env {
	if env == nil {
		return sdk.NewEnv(sdk.EnvOptions{Log: slog.New(slog.DiscardHandler)})
	}
	return env
}

// Combine takes the durable half from one store and the volatile half from
// another. Ready asks both, Close closes the volatile half first.
func Combine(durable, volatile Store) Store {
	s := durable
	s.Routes, s.Presence, s.Cache = volatile.Routes, volatile.Presence, volatile.Cache
	s.Limiter, s.Bus = volatile.Limiter, volatile.Bus
	s.Ready = each(durable.Ready, volatile.Ready)
	s.Close = each(volatile.Close, durable.Close)
	return s
}

// each calls all of f and returns the first error.
func each(f ...func(context.Context) error) func(context.Context) error {
	f = slices.DeleteFunc(f, func(f func(context.Context) error) bool { return f == nil })
	return func(ctx context.Context) error {
		var first error
		for _, f := range f {
			if err := f(ctx); err != nil && first == nil {
				first = err
			}
		}
		return first
	}
}
