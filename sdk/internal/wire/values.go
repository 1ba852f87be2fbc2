package wire

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/commucat/commucat/sdk"
	"github.com/commucat/commucat/sdk/internal/wire/wirepb"
	"github.com/commucat/commucat/sdk/transport"
)

// maxDepth bounds tables and lists inside each other.
const maxDepth = 16

// clean makes text printable and at most limit bytes long.
func clean(text string, limit int) string {
	text = transport.Shorten(text, limit)
	if strings.IndexFunc(text, unprintable) < 0 {
		return text
	}
	return strings.Map(func(r rune) rune {
		if unprintable(r) {
			return '\ufffd'
		}
		return r
	}, text)
}

func unprintable(r rune) bool {
	return r == utf8.RuneError || r != '\n' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
}

func fromPosition(p sdk.Position) *wirepb.Place {
	if p.IsZero() {
		return nil
	}
	return &wirepb.Place{File: clean(p.File, maxText), Line: uint32(p.Line), Column: uint32(p.Column)}
}

func toPosition(p *wirepb.Place) sdk.Position {
	if p == nil {
		return sdk.Position{}
	}
	return sdk.Position{File: clean(p.File, maxText), Line: int(p.Line), Column: int(p.Column)}
}

// FromTable writes a raw configuration whose references have been resolved.
func FromTable(raw map[string]any) (*wirepb.Table, error) { return fromTable(raw, 0) }

func fromTable(raw map[string]any, depth int) (*wirepb.Table, error) {
	if depth > maxDepth {
		return nil, &sdk.Error{Kind: sdk.Invalid, Text: "the configuration is nested too deep"}
	}
	t := &wirepb.Table{}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		v, err := fromValue(raw[key], depth)
		if err != nil {
			return nil, err
		}
		t.Entries = append(t.Entries, &wirepb.Entry{Key: []byte(key), Value: v})
	}
	return t, nil
}

func fromValue(raw any, depth int) (*wirepb.Value, error) {
	if depth > maxDepth {
		return nil, &sdk.Error{Kind: sdk.Invalid, Text: "the configuration is nested too deep"}
	}
	switch v := raw.(type) {
	case sdk.Located:
		out, err := fromValue(v.Value, depth+1)
		if err == nil {
			if out.Key == nil {
				out.Key = fromPosition(v.Key)
			}
			if out.At == nil {
				out.At = fromPosition(v.At)
			}
		}
		return out, err
	case sdk.File:
		return &wirepb.Value{Kind: &wirepb.Value_File{File: &wirepb.File{Path: []byte(v.Path()), Content: v.Bytes()}}}, nil
	case sdk.Secret:
		return &wirepb.Value{Kind: &wirepb.Value_Secret{Secret: v.Bytes()}}, nil
	case map[string]any:
		t, err := fromTable(v, depth+1)
		return &wirepb.Value{Kind: &wirepb.Value_Table{Table: t}}, err
	case []any:
		return fromList(len(v), func(i int) any { return v[i] }, depth)
	case []string:
		return fromList(len(v), func(i int) any { return v[i] }, depth)
	case []map[string]any:
		return fromList(len(v), func(i int) any { return v[i] }, depth)
	}
	return fromLeaf(raw), nil
}

func fromList(n int, at func(int) any, depth int) (*wirepb.Value, error) {
	l := &wirepb.List{}
	for i := range n {
		v, err := fromValue(at(i), depth+1)
		if err != nil {
			return nil, err
		}
		l.Values = append(l.Values, v)
	}
	return &wirepb.Value{Kind: &wirepb.Value_List{List: l}}, nil
}

func fromLeaf(raw any) *wirepb.Value {
	switch v := reflect.ValueOf(raw); {
	case raw == nil:
		return &wirepb.Value{}
	case v.Kind() == reflect.String:
		return &wirepb.Value{Kind: &wirepb.Value_Text{Text: []byte(v.String())}}
	case v.Kind() == reflect.Bool:
		return &wirepb.Value{Kind: &wirepb.Value_Boolean{Boolean: v.Bool()}}
	case v.CanInt():
		return &wirepb.Value{Kind: &wirepb.Value_Integer{Integer: v.Int()}}
	case v.CanUint() && v.Uint() <= math.MaxInt64:
		return &wirepb.Value{Kind: &wirepb.Value_Integer{Integer: int64(v.Uint())}}
	case v.CanUint():
		return &wirepb.Value{Kind: &wirepb.Value_Number{Number: float64(v.Uint())}}
	case v.CanFloat():
		return &wirepb.Value{Kind: &wirepb.Value_Number{Number: v.Float()}}
	}
	return &wirepb.Value{Kind: &wirepb.Value_Other{Other: fmt.Sprintf("%T", raw)}}
}

// Other stands for a value of a type that no configuration takes (a date).
type Other struct{ Type string }

// ToTable reads what FromTable wrote.
func ToTable(t *wirepb.Table) (map[string]any, error) { return toTable(t, 0) }

func toTable(t *wirepb.Table, depth int) (map[string]any, error) {
	if depth > maxDepth {
		return nil, &sdk.Error{Kind: sdk.Invalid, Text: "the configuration is nested too deep"}
	}
	raw := make(map[string]any, len(t.GetEntries()))
	for _, e := range t.GetEntries() {
		v, err := toValue(e.GetValue(), depth)
		if err != nil {
			return nil, err
		}
		raw[string(e.GetKey())] = v
	}
	return raw, nil
}

func toValue(v *wirepb.Value, depth int) (any, error) {
	var raw any
	var err error
	switch k := v.GetKind().(type) {
	case *wirepb.Value_Text:
		raw = string(k.Text)
	case *wirepb.Value_Boolean:
		raw = k.Boolean
	case *wirepb.Value_Integer:
		raw = k.Integer
	case *wirepb.Value_Number:
		raw = k.Number
	case *wirepb.Value_File:
		raw = sdk.NewFile(string(k.File.GetPath()), k.File.GetContent())
	case *wirepb.Value_Secret:
		raw = sdk.NewSecret(k.Secret)
	case *wirepb.Value_Table:
		raw, err = toTable(k.Table, depth+1)
	case *wirepb.Value_List:
		raw, err = toList(k.List, depth)
	case *wirepb.Value_Other:
		raw = Other{k.Other}
	}
	if v.GetKey() == nil && v.GetAt() == nil || err != nil {
		return raw, err
	}
	return sdk.Located{Value: raw, Key: toPosition(v.Key), At: toPosition(v.At)}, nil
}

func toList(l *wirepb.List, depth int) (any, error) {
	if depth > maxDepth {
		return nil, &sdk.Error{Kind: sdk.Invalid, Text: "the configuration is nested too deep"}
	}
	out := make([]any, len(l.GetValues()))
	for i, v := range l.GetValues() {
		var err error
		if out[i], err = toValue(v, depth+1); err != nil {
			return nil, err
		}
	}
	return out, nil
}
