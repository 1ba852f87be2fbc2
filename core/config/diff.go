package config

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Change is one key that differs between two configurations.
type Change struct {
	Key string
	// Old and New are the values as TOML, "" where the key is absent; redacted
	// where secret, so that a changed secret shows equal texts.
	Old, New string
	// Live says that a running relay can take it over. The others wait for a
	// restart.
	Live bool
}

// live are the keys that a running relay takes over on reload. Certificate files
// are read again whatever their names are.
var live = []string{"relay.registration", "relay.announce_transports", "log.level"}

// Diff lists what a reload from a to b changes, in the order of the reference
// page.
func Diff(a, b *Config) []Change {
	before, after := map[string]string{}, map[string]string{}
	var keys []string
	for _, s := range a.Settings() {
		before[s.Key] = s.Value
		keys = append(keys, s.Key)
	}
	for _, s := range b.Settings() {
		if _, ok := before[s.Key]; !ok {
			keys = append(keys, s.Key)
		}
		after[s.Key] = s.Value
	}
	var out []Change
	for _, key := range keys {
		if before[key] != after[key] || secretChanged(a, b, key) {
			out = append(out, Change{Key: key, Old: before[key], New: after[key], Live: isLive(key)})
		}
	}
	return out
}

// secretChanged compares values whose text is redacted.
func secretChanged(a, b *Config, key string) bool {
	if key == "admin.token" {
		return !bytes.Equal(a.Admin.Token.Bytes(), b.Admin.Token.Bytes())
	}
	if !secretName(key[strings.LastIndexByte(key, '.')+1:]) {
		return false
	}
	return !reflect.DeepEqual(rawAt(a.raw, key), rawAt(b.raw, key))
}

func rawAt(raw map[string]any, key string) any {
	var v any
	for name := range strings.SplitSeq(key, ".") {
		v = raw[name]
		raw, _ = plainTable(v)
	}
	return bare(v)
}

func isLive(key string) bool { return slices.Contains(live, key) }

// TakeTransports takes the transports that are not built in, and what the plugins are
// told, over from next. What of c is shared with other copies stays as it is.
func (c *Config) TakeTransports(next *Config, builtIn []string) {
	all := maps.Clone(next.Transports)
	if all == nil {
		all = map[string]Transport{}
	}
	raw := maps.Clone(c.raw)
	tables := map[string]any{}
	before, _ := plainTable(c.raw["transport"])
	after, _ := plainTable(next.raw["transport"])
	for name, t := range after {
		if !slices.Contains(builtIn, name) {
			tables[name] = t
		}
	}
	for _, name := range builtIn {
		delete(all, name)
		if t, ok := c.Transports[name]; ok {
			all[name] = t
		}
		if t, ok := before[name]; ok {
			tables[name] = t
		}
	}
	if raw == nil {
		raw = map[string]any{}
	}
	raw["transport"] = tables
	c.Transports, c.raw = all, raw
	used := map[string]bool{}
	for name := range all {
		if !slices.Contains(builtIn, name) {
			used[c.PluginOf(name)] = true
		}
	}
	c.Plugins = maps.Clone(c.Plugins)
	for name, p := range next.Plugins {
		if used[name] {
			if c.Plugins == nil {
				c.Plugins = map[string]Plugin{}
			}
			c.Plugins[name] = p
		}
	}
}
