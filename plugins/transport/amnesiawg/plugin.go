package amnesiawg

import (
	"github.com/commucat/commucat/plugins/transport/amnesiawg/conf"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Name is the transport's name.
const Name = conf.Name

// Plugin is the transport. Each value has tunnels of its own: dials of one value to
// one relay with one key share a tunnel.
func Plugin() sdk.Plugin {
	tunnels, servers := newTunnels(), newServers()
	return transport.Define(transport.Descriptor{
		Name: Name, Version: "1.0.0",
		Summary:    "UDP that looks like nothing: WireGuard with AmneziaWG's obfuscation",
		Resistance: transport.High, Throughput: transport.High, LowLatency: transport.High, Anonymity: transport.Low,
		Needs:     []transport.Need{{Kind: transport.UDPPort}, {Kind: transport.StateFolder}},
		HalfClose: true,
	}, transport.Funcs[Config]{Listen: servers.listen, Dial: tunnels.dial, Probe: servers.probe, NewKey: conf.NewKey})
}

// Export writes the configuration file of AmneziaWG's own programs for an endpoint;
// see conf.File.
func Export(to transport.Endpoint, key []byte) ([]byte, error) { return conf.File(to, key) }
