package config

import (
	"bytes"
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk"
)

// Setting is one key in force.
type Setting struct {
	// Key is the dotted path, Value its value as TOML; secrets are redacted.
	Key, Value string
	// Given says that the file or the environment set it; Pos is where.
	Given bool
	Pos   sdk.Position
	// Variable is the environment variable that would set it.
	Variable string
}

// Settings are all keys in force, in the order of the reference page. A plugin's
// own keys appear as given, redacted where they look like secrets.
func (c *Config) Settings() []Setting {
	s := settings{c: c}
	s.structure("", reflect.ValueOf(c).Elem())
	return s.out
}

// TOML is the configuration in force as a file, secrets redacted.
func (c *Config) TOML() []byte {
	var b bytes.Buffer
	section := ""
	for _, s := range c.Settings() {
		i := strings.LastIndexByte(s.Key, '.')
		if table := s.Key[:i]; table != section {
			section = table
			fmt.Fprintf(&b, "[%s]\n", table)
		}
		fmt.Fprintf(&b, "%s = %s\n", s.Key[i+1:], s.Value)
	}
	return b.Bytes()
}

type settings struct {
	c   *Config
	out []Setting
}

func (s *settings) structure(prefix string, v reflect.Value) {
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("cfg")
		fv, key := v.Field(i), prefix+name
		switch {
		case name == "":
		case name == "*":
			s.raw(prefix, fv.Interface().(map[string]any))
		case fv.Kind() == reflect.Struct && fv.Type() != reflect.TypeFor[sdk.Secret]():
			s.structure(key+".", fv)
		case fv.Kind() == reflect.Map:
			for _, k := range slices.Sorted(maps.Keys(stringKeys(fv))) {
				s.structure(key+"."+k+".", fv.MapIndex(reflect.ValueOf(k)))
			}
		default:
			s.add(key, encode(fv.Interface()))
		}
	}
}

func stringKeys(v reflect.Value) map[string]bool {
	out := map[string]bool{}
	for _, k := range v.MapKeys() {
		out[k.String()] = true
	}
	return out
}

func (s *settings) raw(prefix string, m map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if t, ok := plainTable(m[name]); ok {
			s.raw(prefix+name+".", t)
			continue
		}
		text := encode(bare(m[name]))
		if secretName(name) {
			text = strconv.Quote(sdk.Redacted)
		}
		s.add(prefix+name, text)
	}
}

// secretName guesses by its name that a plugin's key holds a secret.
func secretName(name string) bool {
	for _, part := range []string{"secret", "password", "token", "key", "dsn", "url", "private"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// bare takes off every Located.
func bare(v any) any {
	switch t := v.(type) {
	case sdk.Located:
		return bare(t.Value)
	case []any:
		out := make([]any, len(t))
		for i, e := range t {
			out[i] = bare(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(t))
		for k, e := range t {
			out[k] = bare(e)
		}
		return out
	}
	return v
}

func (s *settings) add(key, text string) {
	set := Setting{Key: key, Value: text, Variable: Variable(key)}
	raw := s.c.raw
	for name := range strings.SplitSeq(key, ".") {
		var v any
		if v, set.Given = raw[name]; !set.Given {
			break
		}
		if l, ok := v.(sdk.Located); ok {
			set.Pos = l.At
		}
		raw, _ = plainTable(v)
	}
	if !set.Given {
		set.Pos = sdk.Position{}
	}
	s.out = append(s.out, set)
}

func encode(v any) string {
	switch t := v.(type) {
	case string:
		return quote(t)
	case bool, int64, float64, uint8, uint32:
		return fmt.Sprint(t)
	case time.Duration:
		return quote(sdk.FormatDuration(t))
	}
	if m, ok := v.(encoding.TextMarshaler); ok {
		if b, err := m.MarshalText(); err == nil {
			return quote(string(b))
		}
	}
	r := reflect.ValueOf(v)
	if r.Kind() == reflect.Slice {
		parts := make([]string, r.Len())
		for i := range parts {
			parts[i] = encode(r.Index(i).Interface())
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	if r.Kind() == reflect.Map {
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(stringKeys(r))) {
			parts = append(parts, quote(k)+" = "+encode(r.MapIndex(reflect.ValueOf(k)).Interface()))
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	}
	return quote(fmt.Sprint(v))
}

// quote writes a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
