package pluginhost

import (
	"context"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/host"
	"github.com/commucat/commucat/sdk/transport"
)

// Dialer starts a transport's process for its client half, in a sandbox that may reach
// other hosts. The process ends with this program; when it ends before, the dialer is of
// no more use, and the caller closes the process.
func (h *Host) Dialer(ctx context.Context, s Spec) (transport.Dialer, *host.Process, error) {
	o, p, err := h.client(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	return transport.NewDialer(s.Name, o), p.Process, nil
}

// Probe asks a transport that does not run whether it could serve clients with the table
// of the spec, and ends its process again. No cover site is lent to it.
func (h *Host) Probe(ctx context.Context, s Spec) error {
	o, p, err := h.client(ctx, s)
	if err != nil {
		return err
	}
	defer p.Process.Close()
	return o.Probe(ctx)
}

// client opens a transport without anything to listen on.
func (h *Host) client(ctx context.Context, s Spec) (transport.Opened, *process, error) {
	bin := &pinned{h: h, kind: sdk.Transport, name: s.Plugin, dials: true}
	defer bin.close()
	p, err := h.begin(ctx, sdk.Transport, s, bin)
	if err != nil {
		return nil, nil, err
	}
	raw, err := p.raw(s)
	if err != nil {
		return nil, nil, p.failed(err)
	}
	o, err := transport.Open(ctx, p.plugin, sdk.NewEnv(sdk.EnvOptions{Log: p.log, State: p.state, Listen: noListen, ListenPacket: noPacket}), raw)
	if err != nil {
		return nil, nil, p.failed(err)
	}
	return o, p, nil
}
