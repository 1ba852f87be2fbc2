package ledger

import (
	"context"
	"fmt"

	"github.com/commucat/commucat/sdk"
)

// Descriptor names a ledger plugin.
type Descriptor struct {
	Name, Version, Summary string
	// Forgets says that records are not kept, or not past the end of the process.
	// The core then sends it new records only and never reads it.
	Forgets bool
}

// Define makes a plugin from its descriptor and the function that opens it. C is its
// configuration struct (see sdk.Fields).
func Define[C any](d Descriptor, open func(context.Context, sdk.Env, C) (Ledger, error)) sdk.Plugin {
	sdk.Fields(*new(C)) // a malformed struct shows here, not in production
	return &definition[C]{Descriptor: d, open: open}
}

type definition[C any] struct {
	Descriptor
	open func(context.Context, sdk.Env, C) (Ledger, error)
}

func (d *definition[C]) Kind() sdk.Kind  { return sdk.Ledger }
func (d *definition[C]) Name() string    { return d.Descriptor.Name }
func (d *definition[C]) Version() string { return d.Descriptor.Version }
func (d *definition[C]) Summary() string { return d.Descriptor.Summary }
func (d *definition[C]) Forgets() bool   { return d.Descriptor.Forgets }

func (d *definition[C]) Config() any {
	c := new(C)
	sdk.Defaults(c)
	return c
}

// Open implements Opener.
func (d *definition[C]) Open(ctx context.Context, env sdk.Env, raw map[string]any) (Ledger, error) {
	var c C
	if err := sdk.Decode(raw, nil, &c); err != nil {
		return nil, err
	}
	l, err := d.open(ctx, env, c)
	if err != nil {
		return nil, fmt.Errorf("ledger %s: %w", d.Name(), err)
	}
	return l, nil
}

// Opener is a ledger plugin as Open needs it. Define's plugins implement it, and so
// does whatever stands for a plugin in another process.
type Opener interface {
	sdk.Plugin
	// Forgets is Descriptor.Forgets.
	Forgets() bool
	Open(ctx context.Context, env sdk.Env, raw map[string]any) (Ledger, error)
}

// Open opens a ledger with its raw configuration, as sdk.Decode takes it. A nil env
// is one without a state folder. Mistakes in raw are an sdk.ConfigErrors.
func Open(ctx context.Context, p sdk.Plugin, env sdk.Env, raw map[string]any) (Ledger, error) {
	o, ok := p.(Opener)
	if !ok {
		return nil, &sdk.Error{Kind: sdk.Invalid, Op: "ledger", Text: fmt.Sprintf("plugin %q is no ledger", p.Name())}
	}
	if env == nil {
		env = sdk.NewEnv(sdk.EnvOptions{})
	}
	return o.Open(ctx, env, raw)
}

// Forgets reports whether p is a ledger that does not keep its records.
func Forgets(p sdk.Plugin) bool {
	o, ok := p.(Opener)
	return ok && o.Forgets()
}
