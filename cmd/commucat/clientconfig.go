package main

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/commucat/commucat/core/config"
	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/client"
	"github.com/commucat/commucat/sdk/transport"
)

// settingsFile is the client's configuration in the profile's folder. It may be there
// before the device is.
const settingsFile = "client.toml"

// dialers are the transports that the client may use, with the settings of its
// configuration.
func (f *profileFlags) dialers(p *client.Profile) ([]transport.Dialer, error) {
	file := f.config
	if file == "" {
		if file = filepath.Join(f.dir, settingsFile); !exists(file) {
			return chosen(f.transport)
		}
	}
	c, err := config.LoadClient(file, config.Process(known()...))
	if err != nil {
		return nil, configFailure{err}
	}
	all := withSettings(append(dialers(), pluginDialers()...), c)
	if err := f.shut(c, p, names(all)); err != nil {
		return nil, err
	}
	ds, err := chosenOf(all, f.transport)
	if err != nil {
		return nil, err
	}
	var mistakes sdk.ConfigErrors
	for _, d := range ds {
		if p, ok := d.(*processDialer); ok && p.table != nil {
			mistakes = append(mistakes, p.mistakes(file)...)
		}
	}
	if len(mistakes) > 0 {
		mistakes.Sort()
		return nil, mistakes
	}
	return ds, nil
}

// shut names the line that takes away a transport that was asked for, or without which
// the profile's relay cannot be dialled.
func (f *profileFlags) shut(c *config.Client, p *client.Profile, usable []string) error {
	var wanted []string
	for _, e := range p.Relay.Endpoints {
		wanted = append(wanted, e.Transport)
	}
	if f.transport != "" {
		wanted = strings.Split(f.transport, ",")
	} else if slices.ContainsFunc(wanted, func(name string) bool { return slices.Contains(usable, name) }) {
		return nil
	}
	for _, text := range wanted {
		name, _, _ := strings.Cut(strings.TrimSpace(text), "=")
		if t, ok := c.Transports[name]; ok && !t.Enabled {
			key := "transport." + name + ".enabled"
			return sdk.ConfigErrors{{Key: key, Pos: c.Locate(key), Text: "this line keeps the client from using " + name}}
		}
	}
	return nil
}

// mistakes starts the plugin and gives what it finds wrong with its table, which no
// field shows. Whatever else fails is said by the dial.
func (d *processDialer) mistakes(file string) sdk.ConfigErrors {
	_, err := d.start(context.Background())
	var many sdk.ConfigErrors
	if !errors.As(err, &many) {
		return nil
	}
	out := make(sdk.ConfigErrors, 0, len(many))
	for _, e := range many {
		whole := *e
		if whole.Pos.IsZero() {
			whole.Pos = sdk.Locate(d.table, e.Key)
		}
		whole.Key = strings.TrimSuffix("transport."+d.name+"."+e.Key, ".")
		if whole.Pos.IsZero() {
			whole.Pos.File = file
		}
		out = append(out, &whole)
	}
	return out
}

// withSettings puts the tables into the dialers that they name. A table of another name adds
// a dialer, and one that is not enabled takes it away.
func withSettings(all []transport.Dialer, c *config.Client) []transport.Dialer {
	for _, name := range slices.Sorted(maps.Keys(c.Transports)) {
		t := c.Transports[name]
		i := slices.IndexFunc(all, func(d transport.Dialer) bool { return d.Name() == name })
		if i >= 0 && !t.Enabled {
			all = slices.Delete(all, i, i+1)
			continue
		}
		if slices.Contains(builtIn(), name) || !t.Enabled {
			continue
		}
		d := &processDialer{name: name, plugin: name, table: t.Keys, files: c.Files}
		if t.Plugin != "" {
			d.plugin = t.Plugin
		}
		if i >= 0 {
			all[i] = d
		} else {
			all = append(all, d)
		}
	}
	return all
}
