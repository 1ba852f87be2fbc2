package host

import (
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire"
	"github.com/commucat/commucat/sdk/transport"
)

// Description is what a binary says of itself, checked and bounded. It has not been
// believed: a plugin may lie about itself.
type Description struct {
	Plugins []PluginDescription `json:"plugins"`
	Build   Build               `json:"build"`
}

// Build is how a binary was made; any field may be empty.
type Build struct {
	Go       string `json:"go,omitempty"`
	OS       string `json:"os,omitempty"`
	Arch     string `json:"arch,omitempty"`
	Module   string `json:"module,omitempty"`
	Version  string `json:"version,omitempty"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
}

// PluginDescription describes one plugin of a binary.
type PluginDescription struct {
	Kind    sdk.Kind `json:"-"`
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Summary string   `json:"summary"`
	// Protocols are the numbers of its kind's protocol that it speaks.
	Protocols []uint32    `json:"protocols"`
	Config    []sdk.Field `json:"config"`
	// Needs are a transport's.
	Needs []transport.Need `json:"needs,omitempty"`
}

func description(d wire.Document) Description {
	out := Description{Build: Build(d.Build)}
	for _, p := range d.Plugins {
		one := PluginDescription{
			Kind: p.SDKKind(), Name: p.Name, Version: p.Version, Summary: p.Summary, Protocols: p.Protocols, Config: p.Config,
		}
		if p.Transport != nil {
			one.Needs = p.Transport.Needs
		}
		out.Plugins = append(out.Plugins, one)
	}
	return out
}
