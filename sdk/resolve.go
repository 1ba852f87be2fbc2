package sdk

import (
	"maps"
	"slices"
	"strings"
)

// Resolve returns raw with every File and Secret reference that cfg's fields name
// replaced by its content, so that it can be decoded where the references mean
// nothing (in a plugin's own process). Other values are untouched, also wrong
// ones: Decode names those. The error is nil or a ConfigErrors.
func Resolve(cfg any, raw map[string]any, files Resolver) (map[string]any, error) {
	if files == nil {
		files = Files{}
	}
	r := resolver{files: files}
	out := r.table(Fields(cfg), raw, at{})
	return out, r.errs.err()
}

type resolver struct {
	files Resolver
	errs  ConfigErrors
}

func (r *resolver) table(fields []Field, raw map[string]any, a at) map[string]any {
	out := maps.Clone(raw)
	for _, f := range fields {
		if value, ok := raw[f.Name]; ok {
			c, value := a.child(f.Name, value)
			out[f.Name] = Located{Value: r.value(f, value, c), Key: c.keyPos, At: c.pos}
		}
	}
	return out
}

func (r *resolver) value(f Field, raw any, a at) any {
	for _, prefix := range []string{"list of ", "map of "} {
		elem := f
		var nested bool
		if elem.Type, nested = strings.CutPrefix(f.Type, prefix); !nested {
			continue
		}
		if elem.Type == "tables" {
			elem.Type = "table"
		}
		return r.each(elem, prefix, raw, a)
	}
	m, isTable := raw.(map[string]any)
	s, isText := raw.(string)
	var err error
	switch {
	case f.Type == "table" && isTable:
		return r.table(f.Fields, m, a)
	case f.Type == "file" && isText && s != "":
		var file File
		if file.path, file.bytes, err = r.files.File(s); err == nil {
			return file
		}
	case f.Type == "secret" && isText && s != "":
		var b []byte
		if b, err = r.files.Secret(s); err == nil {
			return NewSecret(b)
		}
	}
	if err != nil {
		r.errs = append(r.errs, &ConfigError{Key: a.key, Pos: a.pos, Text: err.Error()})
	}
	return raw
}

func (r *resolver) each(elem Field, prefix string, raw any, a at) any {
	if m, ok := raw.(map[string]any); ok && prefix == "map of " {
		out := make(map[string]any, len(m))
		for _, name := range slices.Sorted(maps.Keys(m)) {
			c, v := a.child(name, m[name])
			out[name] = Located{Value: r.value(elem, v, c), Key: c.keyPos, At: c.pos}
		}
		return out
	}
	items, ok := listOf(raw)
	if !ok || prefix != "list of " || (elem.Type != "file" && elem.Type != "secret" && elem.Type != "table") {
		return raw
	}
	out := make([]any, len(items))
	for i, item := range items {
		c, v := a.locate(item)
		out[i] = Located{Value: r.value(elem, v, c), Key: c.keyPos, At: c.pos}
	}
	return out
}
