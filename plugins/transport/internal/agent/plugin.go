package agent

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Listener is the server half.
type Listener interface {
	net.Listener
	// Health is nil while a client would get through; it is not after Close.
	Health() error
}

// Client is the client half. Its program is started with the first dial.
type Client interface {
	Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error)
	// Close ends the program, and with it its streams.
	Close()
}

// Halves are a transport's parts, as transport.Funcs; NewKey may be nil.
type Halves[C any] struct {
	Listen func(ctx context.Context, env sdk.Env, c C) (Listener, error)
	Client func(env sdk.Env, c C) Client
	NewKey func() (private, public []byte, err error)
}

// Define makes a transport plugin whose client half lives as long as what Open returned,
// and which answers probes by the health of its listener.
func Define[C any](d transport.Descriptor, h Halves[C]) sdk.Plugin {
	p := &plugin[C]{halves: h}
	p.Opener, _ = transport.Define(d, transport.Funcs[C]{Listen: p.listen, NewKey: h.NewKey}).(transport.Opener)
	return p
}

type plugin[C any] struct {
	transport.Opener
	halves Halves[C]
}

func (p *plugin[C]) listen(ctx context.Context, env sdk.Env, c C) (net.Listener, error) {
	ln, err := p.halves.Listen(ctx, env, c)
	if err != nil {
		return nil, err // not a nil *T in an interface
	}
	return ln, nil
}

// Open implements transport.Opener.
func (p *plugin[C]) Open(ctx context.Context, env sdk.Env, raw map[string]any) (transport.Opened, error) {
	o, err := p.Opener.Open(ctx, env, raw)
	if err != nil {
		return nil, err
	}
	var c C
	if err := sdk.Decode(raw, nil, &c); err != nil {
		return nil, err
	}
	return &Opened{inner: o, name: p.Name(), Client: p.halves.Client(env, c)}, nil
}

// Opened is what Open of such a plugin returns.
type Opened struct {
	Client Client

	inner transport.Opened
	name  string
	mu    sync.Mutex
	ln    Listener // the last one
}

var (
	_ transport.Opened   = (*Opened)(nil)
	_ transport.KeyMaker = (*Opened)(nil)
)

// Listen implements transport.Opened.
func (o *Opened) Listen(ctx context.Context) (net.Listener, error) {
	ln, err := o.inner.Listen(ctx)
	if l, ok := ln.(Listener); ok {
		o.mu.Lock()
		o.ln = l
		o.mu.Unlock()
	}
	return ln, err
}

// Dial implements transport.Opened.
func (o *Opened) Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	c, err := o.Client.Dial(ctx, to, with)
	return c, o.named(err)
}

// Probe says whether a client would get through.
func (o *Opened) Probe(context.Context) error {
	o.mu.Lock()
	ln := o.ln
	o.mu.Unlock()
	if ln == nil {
		return o.named(ErrNotListening())
	}
	return o.named(ln.Health())
}

// ErrNotListening is the health of a listener that there is not, or no more.
func ErrNotListening() error {
	return &sdk.Error{Kind: sdk.Unavailable, Op: "probe", Text: "it does not listen"}
}

// NewKey implements transport.KeyMaker.
func (o *Opened) NewKey() (private, public []byte, err error) {
	k, ok := o.inner.(transport.KeyMaker)
	if !ok {
		return nil, nil, o.named(sdk.Unsupported)
	}
	return k.NewKey()
}

// Close ends the client half.
func (o *Opened) Close() error {
	o.Client.Close()
	return o.inner.Close()
}

func (o *Opened) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("transport %s: %w", o.name, err)
}
