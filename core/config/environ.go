package config

import (
	"maps"
	"slices"
	"strings"

	"github.com/commucat/commucat/sdk"
)

// prefix begins every variable: COMMUCAT_SECTION_KEY.
const prefix = "COMMUCAT_"

// Variable is the environment variable of a dotted key.
func Variable(key string) string {
	return prefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// overlay puts the environment over raw. Variables whose first word is no section
// belong to somebody else (COMMUCAT_CONFIG, a test's) and are left alone.
func overlay(raw map[string]any, variables []string, names []string) {
	sections := map[string]sdk.Field{}
	for _, f := range sdk.Fields(Config{}) {
		sections[f.Name] = f
	}
	for _, v := range slices.Sorted(slices.Values(variables)) {
		name, value, ok := strings.Cut(v, "=")
		rest, ours := strings.CutPrefix(name, prefix)
		if !ok || !ours || rest != strings.ToUpper(rest) {
			continue
		}
		word, key, ok := strings.Cut(strings.ToLower(rest), "_")
		section, known := sections[word]
		if !ok || !known || key == "" {
			continue
		}
		path := []string{word, key}
		if strings.HasPrefix(section.Type, "map of ") || word == "ledger" {
			path = tablePath(word, key, named(raw, word, names))
		}
		set(raw, path, sdk.Located{Value: value, Key: sdk.Position{File: name}, At: sdk.Position{File: name}})
	}
}

// tablePath splits KEY of [word.NAME] where NAME may hold hyphens: the longest
// known name that KEY begins with, else its first word.
func tablePath(word, key string, names []string) []string {
	best, rest := "", ""
	for _, n := range names {
		under := strings.ReplaceAll(n, "-", "_")
		if r, ok := strings.CutPrefix(key, under+"_"); ok && r != "" && len(n) > len(best) {
			best, rest = n, r
		}
	}
	if best != "" {
		return []string{word, best, rest}
	}
	if word == "ledger" {
		return []string{word, key}
	}
	if name, r, ok := strings.Cut(key, "_"); ok {
		return []string{word, name, r}
	}
	return []string{word, key}
}

// named are the tables of a section in the file, and the names of plugins.
func named(raw map[string]any, section string, names []string) []string {
	m, _ := plainTable(raw[section])
	return append(slices.Collect(maps.Keys(m)), names...)
}

func plainTable(v any) (map[string]any, bool) {
	for {
		l, ok := v.(sdk.Located)
		if !ok {
			break
		}
		v = l.Value
	}
	m, ok := v.(map[string]any)
	return m, ok
}

// set stores a value; a table in the way that is no table stays for Decode to name.
func set(raw map[string]any, path []string, v any) {
	for _, name := range path[:len(path)-1] {
		next, ok := plainTable(raw[name])
		if !ok {
			if raw[name] != nil {
				return
			}
			next = map[string]any{}
			raw[name] = next
		}
		raw = next
	}
	raw[path[len(path)-1]] = v
}
