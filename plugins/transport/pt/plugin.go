package pt

import (
	"github.com/commucat/commucat/plugins/transport/internal/agent"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// Name is the plugin's name; a configured transport is usually called like its method.
const Name = "pt"

// Plugin is the transport.
func Plugin() sdk.Plugin {
	return agent.Define(transport.Descriptor{
		Name: Name, Version: "1.0.0",
		Summary:    "any pluggable transport of Tor's, by the programs that Tor uses: obfs4, webtunnel, snowflake …",
		Resistance: transport.High, Throughput: transport.High, LowLatency: transport.High, Anonymity: transport.Low,
		Needs: []transport.Need{
			{Kind: transport.Program, Value: "$command|obfs4proxy|lyrebird|webtunnel-client|webtunnel-server|snowflake-client|snowflake-server"},
			{Kind: transport.Outbound}, {Kind: transport.StateFolder},
		},
	}, agent.Halves[Config]{Listen: listen, Client: newClients})
}
