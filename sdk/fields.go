package sdk

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Field describes one key of a configuration struct. Its JSON form is what a
// plugin's description carries.
type Field struct {
	Name string `json:"name"`
	// Type is text, bool, integer, number, duration, size, file, secret, table,
	// "list of …" or "map of …"; "rest" takes every key that has no field.
	Type    string `json:"type"`
	Default string `json:"default,omitempty"`
	Doc     string `json:"doc,omitempty"`
	// Enum are the allowed texts.
	Enum []string `json:"enum,omitempty"`
	// Min and Max bound a number, duration or size by value, a text by bytes and
	// a list by elements.
	Min      string `json:"min,omitempty"`
	Max      string `json:"max,omitempty"`
	Required bool   `json:"required,omitempty"`
	// Fields are the keys of a table, or of each table of a list or map.
	Fields []Field `json:"fields,omitempty"`

	index int
	value reflect.Type
}

var (
	durationType    = reflect.TypeFor[time.Duration]()
	sizeType        = reflect.TypeFor[Size]()
	prefixType      = reflect.TypeFor[netip.Prefix]()
	secretType      = reflect.TypeFor[Secret]()
	fileType        = reflect.TypeFor[File]()
	restType        = reflect.TypeFor[map[string]any]()
	unmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// TypeNamer may be implemented, on the value, by a type that reads itself from
// text (encoding.TextUnmarshaler), to be called something better than "text".
type TypeNamer interface{ ConfigType() string }

// Fields describes a configuration struct (or pointer to one) by its tags:
//
//	cfg:"name"      the key; fields without the tag are no configuration;
//	                cfg:"*" on a map[string]any takes all other keys undecoded
//	default:"…"     the value when the key is absent, as text; lists by commas
//	doc:"…"         one sentence for people
//	enum:"a,b"      the allowed texts
//	min:"1" max:"9" bounds, in the field's own notation
//	required:"true" must be given
//
// A malformed struct is a programming error and panics with the field's name.
func Fields(cfg any) []Field {
	t := reflect.TypeOf(cfg)
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		panic(fmt.Sprintf("sdk: configuration must be a struct, not %v", t))
	}
	return structFields(t)
}

func structFields(t reflect.Type) []Field {
	fields := make([]Field, 0, t.NumField())
	for i := range t.NumField() {
		sf := t.Field(i)
		name := sf.Tag.Get("cfg")
		if name == "" {
			continue
		}
		f := Field{
			Name: name, Default: sf.Tag.Get("default"), Doc: sf.Tag.Get("doc"),
			Min: sf.Tag.Get("min"), Max: sf.Tag.Get("max"),
			Required: sf.Tag.Get("required") == "true", index: i, value: sf.Type,
		}
		if e := sf.Tag.Get("enum"); e != "" {
			f.Enum = strings.Split(e, ",")
		}
		if !sf.IsExported() || (name != "*" && !validKey(name)) {
			panic(fmt.Sprintf("sdk: %v.%s: bad configuration field %q", t, sf.Name, name))
		}
		f.Type, f.Fields = describe(sf.Type)
		if (name == "*") != (sf.Type == restType) || f.Type == "" {
			panic(fmt.Sprintf("sdk: %v.%s: type %v cannot be configured", t, sf.Name, sf.Type))
		}
		fields = append(fields, f)
	}
	return fields
}

func validKey(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return s != ""
}

// describe names a type and, for tables, its fields; "" means not supported.
func describe(t reflect.Type) (string, []Field) {
	if leaf := leafName(t); leaf != "" {
		return leaf, nil
	}
	switch {
	case t == restType:
		return "rest", nil
	case t.Kind() == reflect.Struct:
		return "table", structFields(t)
	case t.Kind() == reflect.Slice:
		return container("list of ", t.Elem())
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		return container("map of ", t.Elem())
	}
	return "", nil
}

func container(prefix string, elem reflect.Type) (string, []Field) {
	if leaf := leafName(elem); leaf != "" {
		return prefix + leaf, nil
	}
	if elem.Kind() == reflect.Struct {
		return prefix + "tables", structFields(elem)
	}
	return "", nil
}

func leafName(t reflect.Type) string {
	switch t {
	case durationType:
		return "duration"
	case sizeType:
		return "size"
	case secretType:
		return "secret"
	case fileType:
		return "file"
	}
	if reflect.PointerTo(t).Implements(unmarshalerType) {
		if n, ok := reflect.Zero(t).Interface().(TypeNamer); ok {
			return n.ConfigType()
		}
		return "text"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "bool"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Float32, reflect.Float64:
		return "number"
	}
	return ""
}

// Defaults sets every configured field of the struct that dst points to: to its
// default, or to zero. Fields without a cfg tag are left alone.
func Defaults(dst any) {
	setDefaults(target(dst))
}

func target(dst any) reflect.Value {
	v := reflect.ValueOf(dst)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("sdk: configuration must be a pointer to a struct, not %T", dst))
	}
	return v.Elem()
}

func setDefaults(v reflect.Value) {
	for _, f := range structFields(v.Type()) {
		fv := v.Field(f.index)
		if f.Type == "table" {
			setDefaults(fv)
			continue
		}
		fv.SetZero()
		if f.Default == "" {
			continue
		}
		d := decoder{}
		d.value(fv, f, f.Default, at{key: f.Name})
		if len(d.errs) > 0 {
			panic(fmt.Sprintf("sdk: %v: default of %s: %s", v.Type(), f.Name, d.errs[0].Text))
		}
	}
}

// bound checks min and max; "" means within. A text or secret that is not set is
// within: required is for that.
func bound(f Field, v reflect.Value) string {
	if f.Min == "" && f.Max == "" {
		return ""
	}
	if s, ok := v.Interface().(Secret); (ok && s.IsZero()) || (v.Kind() == reflect.String && v.Len() == 0) {
		return ""
	}
	value, unit := measure(v)
	for _, b := range []struct {
		text string
		low  bool
	}{{f.Min, true}, {f.Max, false}} {
		if b.text == "" {
			continue
		}
		limit, err := parseBound(b.text, v.Type())
		if err != nil {
			panic(fmt.Sprintf("sdk: bound of %s: %v", f.Name, err))
		}
		if b.low && value < limit {
			return "must be at least " + b.text + unit
		}
		if !b.low && value > limit {
			return "must be at most " + b.text + unit
		}
	}
	return ""
}

func measure(v reflect.Value) (value float64, unit string) {
	switch {
	case v.Type() == secretType:
		return float64(len(v.Interface().(Secret).Bytes())), " bytes long"
	case v.CanInt():
		return float64(v.Int()), ""
	case v.CanUint():
		return float64(v.Uint()), ""
	case v.CanFloat():
		return v.Float(), ""
	case v.Kind() == reflect.String:
		return float64(v.Len()), " bytes long"
	case v.Kind() == reflect.Slice, v.Kind() == reflect.Map:
		return float64(v.Len()), " entries"
	}
	return 0, ""
}

func parseBound(s string, t reflect.Type) (float64, error) {
	switch t {
	case durationType:
		d, err := ParseDuration(s)
		return float64(d), err
	case sizeType:
		n, err := ParseSize(s)
		return float64(n), err
	}
	return strconv.ParseFloat(s, 64)
}
