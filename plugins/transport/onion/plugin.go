package onion

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"io"
	"net"
	"sync"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Name is the transport's name.
const Name = "onion"

// Plugin is the transport.
func Plugin() sdk.Plugin {
	p := &plugin{probes: map[sdk.Env]*service{}}
	p.Opener, _ = transport.Define(transport.Descriptor{
		Name: Name, Version: "1.0.0",
		Summary:    "a Tor onion service: no public address, and nobody learns where client or relay are",
		Resistance: transport.Medium, Throughput: transport.Low, LowLatency: transport.Low, Anonymity: transport.High,
		Needs: []transport.Need{
			{Kind: transport.Program, Value: "$program|tor"}, {Kind: transport.Outbound}, {Kind: transport.StateFolder},
		},
	}, transport.Funcs[Config]{Listen: p.listen, Probe: p.probe, NewKey: newKey}).(transport.Opener)
	return p
}

// newKey draws a device's key, for tor's client authorisation.
func newKey() (private, public []byte, err error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	return k.Bytes(), k.PublicKey().Bytes(), nil
}

// plugin adds the client side, whose tor lives as long as what Open returned.
type plugin struct {
	transport.Opener
	mu     sync.Mutex
	probes map[sdk.Env]*service
}

// Open implements transport.Opener.
func (p *plugin) Open(ctx context.Context, env sdk.Env, raw map[string]any) (transport.Opened, error) {
	o, err := p.Opener.Open(ctx, env, raw)
	if err != nil {
		return nil, err
	}
	var c Config
	if err := sdk.Decode(raw, nil, &c); err != nil {
		return nil, err
	}
	return &opened{Opened: o, client: newClient(env, c)}, nil
}

type opened struct {
	transport.Opened
	client *client
}

// Dial implements transport.Opened.
func (o *opened) Dial(ctx context.Context, to transport.Endpoint, with transport.Dial) (net.Conn, error) {
	return o.client.dial(ctx, to, with)
}

// NewKey implements transport.KeyMaker.
func (o *opened) NewKey() (private, public []byte, err error) { return newKey() }

// Close ends the client's tor, and with it its streams.
func (o *opened) Close() error {
	o.client.close()
	return o.Opened.Close()
}

// probe says whether the service is published.
func (p *plugin) probe(_ context.Context, env sdk.Env, _ Config) error {
	p.mu.Lock()
	s := p.probes[env]
	p.mu.Unlock()
	if s == nil {
		return &sdk.Error{Kind: sdk.Unavailable, Op: "probe", Text: "it does not listen"}
	}
	return s.health()
}

func readFull(r io.Reader, b []byte) (int, error) { return io.ReadFull(r, b) }
