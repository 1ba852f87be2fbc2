package masque

import (
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Plugin is the transport.
func Plugin() sdk.Plugin {
	return transport.Define(transport.Descriptor{
		Name: Name, Version: "1.0.0",
		Summary:    "CONNECT and CONNECT-UDP of an HTTP/3 site, with HTTP/2 where QUIC is blocked",
		Resistance: transport.High, Throughput: transport.High, LowLatency: transport.High, Anonymity: transport.Low,
		Needs: []transport.Need{
			{Kind: transport.UDPPort}, {Kind: transport.TCPPort}, {Kind: transport.StateFolder}, {Kind: transport.CoverSite},
			{Kind: transport.Outbound, Value: "UDP to the configured targets"},
		},
		HalfClose: true,
	}, transport.Funcs[Config]{Listen: listen, Dial: dial, NewKey: newKey})
}
