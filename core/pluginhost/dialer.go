package pluginhost

import (
	"context"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Dialer starts a transport's process for its client half, in a sandbox that may reach
// other hosts. The process ends with this program.
func (h *Host) Dialer(ctx context.Context, s Spec) (transport.Dialer, error) {
	bin := &pinned{h: h, kind: sdk.Transport, name: s.Plugin, dials: true}
	defer bin.close()
	p, err := h.begin(ctx, sdk.Transport, s, bin)
	if err != nil {
		return nil, err
	}
	raw, err := p.raw(s)
	if err != nil {
		return nil, p.failed(err)
	}
	o, err := transport.Open(ctx, p.plugin, sdk.NewEnv(sdk.EnvOptions{Log: p.log, State: p.state, Listen: noListen, ListenPacket: noPacket}), raw)
	if err != nil {
		return nil, p.failed(err)
	}
	return transport.NewDialer(s.Name, o), nil
}
