package config

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/commucat/commucat/sdk"
)

// askings is how often a plugin is asked about one table at most.
const askings = 4

// question is what a plugin is asked: its Check, the table that its keys stand in, and
// its fields.
type question struct {
	check func(map[string]any) error
	table string
	cfg   any
}

// asked adds to the mistakes that were found in a table what the plugin itself finds
// wrong. A plugin looks no further than its first kind of mistake: it is asked again
// without the keys that are wrong, so that one round of mending is enough. What it says
// then about a key that it was not shown does not count.
func (k *checker) asked(q question, keys map[string]any, found sdk.ConfigErrors) sdk.ConfigErrors {
	left, hidden := maps.Clone(keys), []string(nil)
	for n := range askings {
		shown := len(left)
		for _, e := range found {
			name := outermost(q.table, e.Key)
			if _, given := left[name]; given {
				delete(left, name)
				hidden = append(hidden, name)
			}
		}
		if n > 0 && len(left) == shown {
			break
		}
		before := len(found)
		for _, e := range k.ask(q, left) {
			known := slices.ContainsFunc(found, func(f *sdk.ConfigError) bool { return f.Key == e.Key && f.Text == e.Text })
			if !known && !slices.Contains(hidden, outermost(q.table, e.Key)) && !mentions(e.Text, hidden) {
				found = append(found, e)
			}
		}
		if len(found) == before {
			break
		}
	}
	found.Sort()
	return found
}

// ask asks once; the mistakes have whole keys and a place each.
func (k *checker) ask(q question, keys map[string]any) sdk.ConfigErrors {
	raw, err := sdk.Resolve(q.cfg, keys, k.files)
	if err == nil {
		err = q.check(raw)
	}
	var many sdk.ConfigErrors
	if !errors.As(err, &many) {
		return nil
	}
	out := make(sdk.ConfigErrors, len(many))
	for i, e := range many {
		whole := *e
		whole.Key = q.table
		if e.Key != "" {
			whole.Key += "." + e.Key
		}
		if whole.Pos.IsZero() {
			whole.Pos = sdk.Locate(k.c.raw, whole.Key)
		}
		out[i] = &whole
	}
	return out
}

// outermost is the key of the table itself in which a mistake lies, "" if it is of the
// table as a whole.
func outermost(table, key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, table), ".")
	if i := strings.IndexAny(key, ".["); i >= 0 {
		key = key[:i]
	}
	return key
}

// mentions says that one of the names is a word of the text.
func mentions(text string, names []string) bool {
	words := strings.FieldsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-'
	})
	return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(names, w) })
}
