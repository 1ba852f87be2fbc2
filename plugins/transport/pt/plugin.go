package pt

import (
	"context"
	"net"
	"sync"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Name is the plugin's name; a configured transport is usually called like its method.
const Name = "pt"

// Plugin is the transport.
func Plugin() sdk.Plugin {
	p := &plugin{probes: map[sdk.Env]*server{}}
	p.Opener, _ = transport.Define(transport.Descriptor{
		Name: Name, Version: "1.0.0",
		Summary:    "any pluggable transport of Tor's, by the programs that Tor uses: obfs4, webtunnel, snowflake …",
		Resistance: transport.High, Throughput: transport.High, LowLatency: transport.High, Anonymity: transport.Low,
		Needs: []transport.Need{
			{Kind: transport.Program, Value: "$command|obfs4proxy|lyrebird|webtunnel-client|webtunnel-server|snowflake-client|snowflake-server"},
			{Kind: transport.Outbound}, {Kind: transport.StateFolder},
		},
	}, transport.Funcs[Config]{Listen: p.listen, Probe: p.probe}).(transport.Opener)
	return p
}

// plugin adds the client side, whose children live as long as what Open returned.
type plugin struct {
	transport.Opener
	mu     sync.Mutex
	probes map[sdk.Env]*server
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
	return &opened{Opened: o, clients: newClients(env, c)}, nil
}

type opened struct {
	transport.Opened
	clients *clients
}

// Dial implements transport.Opened.
func (o *opened) Dial(ctx context.Context, to transport.Endpoint, _ transport.Dial) (net.Conn, error) {
	return o.clients.dial(ctx, to)
}

// Close ends the children of the client side, and with them its streams.
func (o *opened) Close() error {
	o.clients.close()
	return o.Opened.Close()
}

// probe says whether the child is ready.
func (p *plugin) probe(_ context.Context, env sdk.Env, _ Config) error {
	p.mu.Lock()
	s := p.probes[env]
	p.mu.Unlock()
	if s == nil {
		return &sdk.Error{Kind: sdk.Unavailable, Op: "probe", Text: "it does not listen"}
	}
	return s.health()
}
