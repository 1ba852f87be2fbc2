package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/core/pluginhost"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/transport"
)

// catalog is where plugins lie: the folders of COMMUCAT_PLUGINS, else beside the
// program and in the system's folder.
func catalog() *pluginhost.Catalog {
	if path := os.Getenv("COMMUCAT_PLUGINS"); path != "" {
		return pluginhost.NewCatalog(filepath.SplitList(path)...)
	}
	return pluginhost.NewCatalog(pluginhost.DefaultFolders()...)
}

// pluginHost runs plugins for one command; without a data folder they keep nothing.
func pluginHost(state string) *pluginhost.Host {
	return pluginhost.New(pluginhost.Options{Catalog: catalog(), State: state})
}

// listed are the plugins of the catalog, for the configuration. One whose list cannot
// be used is not known; 'plugin verify' says why.
func listed() []config.Known {
	list, _ := catalog().List()
	var out []config.Known
	for _, f := range list {
		kind := f.PluginKind()
		out = append(out, config.Known{
			Plugin: &listedPlugin{found: f}, Kind: kind, Name: f.Name,
			UDP: slices.Contains(f.Needs, string(transport.UDPPort)), TCP: slices.Contains(f.Needs, string(transport.TCPPort)),
		})
	}
	for _, f := range catalog().Untrusted() { // refused when it is started, and nothing else
		out = append(out, config.Known{Plugin: &listedPlugin{found: f}, Kind: f.PluginKind(), Name: f.Name})
	}
	return out
}

// listedPlugin describes a plugin of the catalog. Its keys are asked of the binary, in
// a sandbox, when somebody names the plugin.
type listedPlugin struct {
	found pluginhost.Found
	once  sync.Once
	cfg   any
}

// unasked takes every key of the catalog's plugins, and starts none of them.
func unasked() []config.Known {
	out := listed()
	for i := range out {
		out[i].Plugin.(*listedPlugin).take(new(anything))
	}
	return out
}

// asking has each of the catalog's plugins check its keys itself; note is told of those
// that were not asked, and why.
func asking(note func(name string, err error)) []config.Known {
	out := listed()
	for i, k := range out {
		out[i].Check = func(raw map[string]any) error {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			err := pluginHost("").Check(ctx, k.Kind, k.Name, raw)
			if many := (sdk.ConfigErrors)(nil); err != nil && !errors.As(err, &many) {
				note(pluginhost.KindName(k.Kind)+" "+k.Name, err)
			}
			return err
		}
	}
	return out
}

// asked are all plugins, each of which is asked what is wrong with its keys.
func (a *app) asked() []config.Known {
	return append(builtInKnown(), asking(func(name string, err error) { a.say("%s was not asked about its keys: %v", name, err) })...)
}

// take sets what Config gives, without asking the binary.
func (p *listedPlugin) take(cfg any) { p.once.Do(func() { p.cfg = cfg }) }

func (p *listedPlugin) Kind() sdk.Kind  { return p.found.PluginKind() }
func (p *listedPlugin) Name() string    { return p.found.Name }
func (p *listedPlugin) Version() string { return p.found.Version }
func (p *listedPlugin) Summary() string { return "" }

// anything takes every key: of a binary that may not run. What is wrong with it is
// said when it is started, and keeps nothing else from starting.
type anything struct {
	Keys map[string]any `cfg:"*"`
}

func (p *listedPlugin) Config() any {
	p.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		cfg, err := pluginHost("").Config(ctx, p.Kind(), p.Name())
		if err != nil {
			cfg = new(anything)
		}
		p.cfg = cfg
	})
	return p.cfg
}

// arrivals prints the events of plugin transports, after the ready line.
type arrivals struct {
	a     *app
	mu    sync.Mutex
	begun bool
	held  []pluginhost.Reachable
}

func (r *arrivals) note(e pluginhost.Reachable) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.begun {
		r.held = append(r.held, e)
		return
	}
	_ = r.print(e) // a closed pipe ends nobody's relay
}

func (r *arrivals) begin() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun = true
	for _, e := range r.held {
		if err := r.print(e); err != nil {
			return err
		}
	}
	r.held = nil
	return nil
}

func (r *arrivals) print(e pluginhost.Reachable) error {
	if !r.a.json {
		return nil // the log says it
	}
	out := struct {
		Event     string `json:"event"`
		Transport string `json:"transport"`
		Address   string `json:"address,omitempty"`
		Reason    string `json:"reason,omitempty"`
	}{"transport_ready", e.Transport, e.Address, ""}
	if e.Address == "" {
		out.Event = "transport_lost"
		if e.Err != nil {
			out.Reason = e.Err.Error()
		}
	}
	return r.a.emit(out)
}
