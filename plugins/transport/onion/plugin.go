package onion

import (
	"crypto/ecdh"
	"crypto/rand"

	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Name is the transport's name.
const Name = "onion"

// Plugin is the transport.
func Plugin() sdk.Plugin {
	return agent.Define(transport.Descriptor{
		Name: Name, Version: "1.0.0",
		Summary:    "a Tor onion service: no public address, and nobody learns where client or relay are",
		Resistance: transport.Medium, Throughput: transport.Low, LowLatency: transport.Low, Anonymity: transport.High,
		Needs: []transport.Need{
			{Kind: transport.Program, Value: "$program|tor"}, {Kind: transport.Outbound}, {Kind: transport.StateFolder},
		},
	}, agent.Halves[Config]{Listen: listen, Client: newClient, NewKey: newKey})
}

// newKey draws a device's key, for tor's client authorisation.
func newKey() (private, public []byte, err error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	return k.Bytes(), k.PublicKey().Bytes(), nil
}
