package sdk

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Checker may be implemented by a configuration struct (or by a table in it) for
// what tags cannot say. Check runs after the whole table has been decoded without
// a mistake. A *ConfigError or ConfigErrors in its answer names keys relative to
// the table; Decode completes them with the path and the place in the file.
type Checker interface{ Check() error }

// Decode sets dst, a pointer to a configuration struct, to its defaults and then
// to what raw says. Values may be what TOML or JSON decoders give (string, bool,
// integers, floats, []any, map[string]any), a Located around them, or File and
// Secret values that have been resolved already. Numbers, booleans and lists are
// also accepted as text, so that an environment variable can carry them.
//
// files resolves File and Secret references; nil is Files{}.
//
// The error is nil or a ConfigErrors with every mistake; dst is then partly set.
func Decode(raw map[string]any, files Resolver, dst any) error {
	v := target(dst)
	setDefaults(v)
	if files == nil {
		files = Files{}
	}
	d := decoder{files: files}
	d.table(v, structFields(v.Type()), raw, at{})
	return d.errs.err()
}

// DecodeAt is Decode for a table that lies at key (and place pos) of a larger
// configuration; both appear in the errors.
func DecodeAt(key string, pos Position, raw map[string]any, files Resolver, dst any) error {
	v := target(dst)
	setDefaults(v)
	if files == nil {
		files = Files{}
	}
	d := decoder{files: files}
	d.table(v, structFields(v.Type()), raw, at{key: key, keyPos: pos, pos: pos})
	return d.errs.err()
}

// at is where a value lies.
type at struct {
	key         string
	keyPos, pos Position
}

func (a at) child(name string, raw any) (at, any) {
	c := at{key: name, keyPos: a.keyPos, pos: a.pos}
	if a.key != "" {
		c.key = a.key + "." + name
	}
	return c.locate(raw)
}

// locate takes off a Located.
func (a at) locate(raw any) (at, any) {
	for {
		l, ok := raw.(Located)
		if !ok {
			return a, raw
		}
		if raw = l.Value; !l.Key.IsZero() {
			a.keyPos = l.Key
		}
		if !l.At.IsZero() {
			a.pos = l.At
		}
	}
}

type decoder struct {
	files Resolver
	errs  ConfigErrors
}

func (d *decoder) fail(a at, format string, args ...any) {
	d.errs = append(d.errs, &ConfigError{Key: a.key, Pos: a.pos, Text: fmt.Sprintf(format, args...)})
}

func (d *decoder) table(v reflect.Value, fields []Field, raw map[string]any, a at) {
	before := len(d.errs)
	names := make([]string, 0, len(fields))
	var rest map[string]any
	for _, f := range fields {
		if f.Name == "*" {
			rest = map[string]any{}
			v.Field(f.index).Set(reflect.ValueOf(rest))
			continue
		}
		names = append(names, f.Name)
		value, given := raw[f.Name]
		if !given {
			if f.Required {
				d.fail(a, "%s is required", f.Name)
			}
			if f.Type == "table" { // required keys and checks inside
				c, _ := a.child(f.Name, nil)
				d.table(v.Field(f.index), f.Fields, nil, c)
			}
			continue
		}
		c, value := a.child(f.Name, value)
		d.value(v.Field(f.index), f, value, c)
	}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		if slices.Contains(names, key) {
			continue
		}
		if rest != nil {
			rest[key] = raw[key]
			continue
		}
		c, _ := a.child(key, raw[key])
		d.errs = append(d.errs, &ConfigError{Key: c.key, Pos: c.keyPos, Text: "unknown key", Suggestion: Suggest(key, names)})
	}
	if len(d.errs) == before {
		d.check(v, raw, a)
	}
}

func (d *decoder) check(v reflect.Value, raw map[string]any, a at) {
	c, ok := v.Addr().Interface().(Checker)
	if !ok {
		return
	}
	err := c.Check()
	if err == nil {
		return
	}
	var many ConfigErrors
	var one *ConfigError
	switch {
	case errors.As(err, &many):
	case errors.As(err, &one):
		many = ConfigErrors{one}
	default:
		d.fail(a, "%v", err)
		return
	}
	for _, e := range many {
		full := *e
		full.Key, full.Pos = join(a.key, e.Key), Locate(raw, e.Key)
		if full.Pos.IsZero() {
			full.Pos = a.pos
		}
		d.errs = append(d.errs, &full)
	}
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "." + b
}

// Locate finds the place of a dotted key in a raw table: of its value, or of the
// nearest table above it that is there. "key[2]" is an element of a list.
func Locate(raw map[string]any, key string) Position {
	var best Position
	for key != "" {
		name, rest, _ := strings.Cut(key, ".")
		name, index, inList := strings.Cut(strings.TrimSuffix(name, "]"), "[")
		value, ok := raw[name]
		if !ok {
			break
		}
		a, value := at{}.locate(value)
		if list, ok := value.([]any); ok && inList {
			if i, err := strconv.Atoi(index); err == nil && i >= 0 && i < len(list) {
				a, value = a.locate(list[i])
			}
		}
		if !a.pos.IsZero() {
			best = a.pos
		}
		if raw, ok = value.(map[string]any); !ok {
			break
		}
		key = rest
	}
	return best
}

func (d *decoder) value(v reflect.Value, f Field, raw any, a at) {
	switch {
	case f.Type == "table":
		if m, ok := raw.(map[string]any); ok {
			d.table(v, f.Fields, m, a)
			return
		}
		d.fail(a, "must be a table, not %s", nameOf(raw))
	case strings.HasPrefix(f.Type, "list of "):
		d.list(v, f, raw, a)
	case strings.HasPrefix(f.Type, "map of "):
		d.dict(v, f, raw, a)
	default:
		d.leaf(v, f, raw, a)
	}
}

func (d *decoder) list(v reflect.Value, f Field, raw any, a at) {
	items, ok := listOf(raw)
	if !ok {
		d.fail(a, "must be a list, not %s", nameOf(raw))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(items), len(items))
	elem := f
	elem.Min, elem.Max = "", ""
	for i, item := range items {
		ia, item := at{key: fmt.Sprintf("%s[%d]", a.key, i), keyPos: a.keyPos, pos: a.pos}.locate(item)
		if !strings.HasSuffix(f.Type, "tables") {
			d.leaf(out.Index(i), elem, item, ia)
			continue
		}
		m, ok := item.(map[string]any)
		if !ok {
			d.fail(ia, "must be a table, not %s", nameOf(item))
			continue
		}
		setDefaults(out.Index(i))
		d.table(out.Index(i), f.Fields, m, ia)
	}
	v.Set(out)
	if text := bound(f, v); text != "" {
		d.fail(a, "%s", text)
	}
}

func listOf(raw any) ([]any, bool) {
	switch r := raw.(type) {
	case []any:
		return r, true
	case []string:
		out := make([]any, len(r))
		for i, s := range r {
			out[i] = s
		}
		return out, true
	case []map[string]any:
		out := make([]any, len(r))
		for i, s := range r {
			out[i] = s
		}
		return out, true
	case string:
		var out []any
		for s := range strings.SplitSeq(r, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
		return out, true
	}
	return nil, false
}

func (d *decoder) dict(v reflect.Value, f Field, raw any, a at) {
	m, ok := raw.(map[string]any)
	if !ok {
		d.fail(a, "must be a table, not %s", nameOf(raw))
		return
	}
	out := reflect.MakeMapWithSize(v.Type(), len(m))
	elem := f
	elem.Min, elem.Max = "", ""
	for _, name := range slices.Sorted(maps.Keys(m)) {
		ia, item := a.child(name, m[name])
		ev := reflect.New(v.Type().Elem()).Elem()
		if strings.HasSuffix(f.Type, "tables") {
			if t, ok := item.(map[string]any); ok {
				setDefaults(ev)
				d.table(ev, f.Fields, t, ia)
			} else {
				d.fail(ia, "must be a table, not %s", nameOf(item))
			}
		} else {
			d.leaf(ev, elem, item, ia)
		}
		out.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), ev)
	}
	v.Set(out)
	if text := bound(f, v); text != "" {
		d.fail(a, "%s", text)
	}
}

func (d *decoder) leaf(v reflect.Value, f Field, raw any, a at) {
	if text := d.set(v, raw); text != "" {
		d.fail(a, "%s", text)
		return
	}
	if len(f.Enum) > 0 && v.Kind() == reflect.String && !slices.Contains(f.Enum, v.String()) {
		d.errs = append(d.errs, &ConfigError{
			Key: a.key, Pos: a.pos, Suggestion: Suggest(v.String(), f.Enum),
			Text: fmt.Sprintf("%q is not one of %s", v.String(), strings.Join(f.Enum, ", ")),
		})
		return
	}
	if text := bound(f, v); text != "" {
		d.fail(a, "%s", text)
	}
}

// set stores one value and says what is wrong with it, never quoting a secret.
func (d *decoder) set(v reflect.Value, raw any) string {
	switch v.Type() {
	case secretType:
		return d.secret(v, raw)
	case fileType:
		return d.file(v, raw)
	case durationType:
		return setText(v, raw, "a duration such as \"30s\"", func(s string) error {
			n, err := ParseDuration(s)
			v.SetInt(int64(n))
			return err
		})
	case prefixType:
		return setText(v, raw, "a network such as \"10.0.0.0/8\"", func(s string) error {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return fmt.Errorf("%q is not a network; write it as \"10.0.0.0/8\"", s)
			}
			v.Set(reflect.ValueOf(p))
			return nil
		})
	case sizeType:
		if n, ok := integer(raw); ok && n >= 0 {
			v.SetInt(n)
			return ""
		}
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return setText(v, raw, "text", func(s string) error { return u.UnmarshalText([]byte(s)) })
	}
	switch {
	case v.Kind() == reflect.String:
		return setText(v, raw, "text", func(s string) error { v.SetString(s); return nil })
	case v.Kind() == reflect.Bool:
		return setBool(v, raw)
	}
	return setNumber(v, raw)
}

func setText(_ reflect.Value, raw any, want string, set func(string) error) string {
	s, ok := raw.(string)
	if !ok {
		return "must be " + want + ", not " + nameOf(raw)
	}
	if err := set(s); err != nil {
		return err.Error()
	}
	return ""
}

func setBool(v reflect.Value, raw any) string {
	switch r := raw.(type) {
	case bool:
		v.SetBool(r)
		return ""
	case string:
		if r == "true" || r == "false" {
			v.SetBool(r == "true")
			return ""
		}
	}
	return "must be true or false, not " + nameOf(raw)
}

func setNumber(v reflect.Value, raw any) string {
	if v.CanFloat() {
		f, ok := float(raw)
		if !ok {
			return "must be a number, not " + nameOf(raw)
		}
		v.SetFloat(f)
		return ""
	}
	n, ok := integer(raw)
	if !ok {
		return "must be a whole number, not " + nameOf(raw)
	}
	if v.CanUint() {
		if n < 0 || v.OverflowUint(uint64(n)) {
			return fmt.Sprintf("%d is out of range", n)
		}
		v.SetUint(uint64(n))
		return ""
	}
	if v.OverflowInt(n) {
		return fmt.Sprintf("%d is out of range", n)
	}
	v.SetInt(n)
	return ""
}

func integer(raw any) (int64, bool) {
	switch v := reflect.ValueOf(raw); {
	case raw == nil:
		return 0, false
	case v.CanInt():
		return v.Int(), true
	case v.CanUint():
		return int64(v.Uint()), v.Uint() <= math.MaxInt64
	case v.CanFloat(): // JSON decoders know nothing else
		f := v.Float()
		return int64(f), f == math.Trunc(f) && math.Abs(f) < 1<<53
	case v.Kind() == reflect.String:
		n, err := strconv.ParseInt(strings.ReplaceAll(v.String(), "_", ""), 10, 64)
		return n, err == nil
	}
	return 0, false
}

func float(raw any) (float64, bool) {
	switch v := reflect.ValueOf(raw); {
	case raw == nil:
		return 0, false
	case v.CanInt():
		return float64(v.Int()), true
	case v.CanFloat():
		return v.Float(), !math.IsNaN(v.Float()) && !math.IsInf(v.Float(), 0)
	case v.Kind() == reflect.String:
		f, err := strconv.ParseFloat(v.String(), 64)
		return f, err == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
	}
	return 0, false
}

func (d *decoder) secret(v reflect.Value, raw any) string {
	switch r := raw.(type) {
	case Secret:
		v.Set(reflect.ValueOf(r))
	case string:
		if r == "" {
			v.SetZero()
			return ""
		}
		b, err := d.files.Secret(r)
		if err != nil {
			return err.Error()
		}
		v.Set(reflect.ValueOf(NewSecret(b)))
	default:
		return "must be text, not " + kindOf(raw)
	}
	return ""
}

func (d *decoder) file(v reflect.Value, raw any) string {
	switch r := raw.(type) {
	case File:
		v.Set(reflect.ValueOf(r))
	case string:
		if r == "" {
			v.SetZero()
			return ""
		}
		path, b, err := d.files.File(r)
		if err != nil {
			return err.Error()
		}
		v.Set(reflect.ValueOf(NewFile(path, b)))
	default:
		return "must be the name of a file, not " + nameOf(raw)
	}
	return ""
}

// nameOf shows a value shortly with its type.
func nameOf(raw any) string {
	if s, ok := raw.(string); ok {
		if len(s) > 40 {
			s = s[:40] + "…"
		}
		return fmt.Sprintf("%q", s)
	}
	return kindOf(raw)
}

func kindOf(raw any) string {
	switch v := reflect.ValueOf(raw); {
	case raw == nil:
		return "nothing"
	case v.Kind() == reflect.Bool:
		return fmt.Sprintf("the boolean %v", raw)
	case v.CanInt(), v.CanUint(), v.CanFloat():
		return fmt.Sprintf("the number %v", raw)
	case v.Kind() == reflect.Slice:
		return "a list"
	case v.Kind() == reflect.Map:
		return "a table"
	}
	return fmt.Sprintf("%T", raw)
}
