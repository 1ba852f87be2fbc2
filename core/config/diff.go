package config

import (
	"bytes"
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
var live = []string{"relay.registration", "log.level"}

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
