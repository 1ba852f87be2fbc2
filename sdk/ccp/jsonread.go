package ccp

import "strconv"

// presence says how a key may be missing (the notation of ccp1.md 7.2).
type presence uint8

const (
	required  presence = iota // "name: type"
	optional                  // "name?: type": may be missing or null
	defaulted                 // "name = v": may be missing, not null
)

// maxKeys bounds the keys that one object's reader looks for.
const maxKeys = 20

// reader picks the wanted members of one object in a single pass. The first
// mistake is kept in err; later reads answer zero values.
type reader struct {
	path  string
	whole Raw
	keys  []string
	vals  [maxKeys]Raw
	err   error
}

// readObject checks b (at most limit bytes) and reads the wanted keys of the
// object in it. path goes in front of field names in errors.
func readObject(b []byte, path string, limit int, keys ...string) (reader, error) {
	if len(b) > limit {
		return reader{}, malformed(ControlLimit)
	}
	if err := validJSON(b); err != nil {
		return reader{}, err
	}
	return pick(trim(b), path, keys...)
}

// pick is readObject for a value of checked JSON.
func pick(v Raw, path string, keys ...string) (reader, error) {
	r := reader{path: path, whole: v}
	if !v.IsObject() {
		return r, badField(path, "not an object")
	}
	r.want(keys...)
	return r, nil
}

// want fills in the members of these names, at most maxKeys.
func (r *reader) want(keys ...string) {
	r.keys = keys
	for it := r.whole.list('{'); it.next(); {
		for i, k := range keys {
			if string(it.key) == k {
				r.vals[i] = it.val
				break
			}
		}
	}
}

func (r *reader) fail(name, detail string) {
	if r.err == nil {
		r.err = badField(r.full(name), detail)
	}
}

// note keeps an error that a nested parser met.
func (r *reader) note(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) full(name string) string {
	if r.path == "" {
		return name
	}
	return r.path + "." + name
}

// raw is the member as it stands, nil when missing.
func (r *reader) raw(name string) Raw {
	for i, k := range r.keys {
		if k == name {
			return r.vals[i]
		}
	}
	return nil
}

// value is the member if it must be looked at: false if it is missing (noted as
// a mistake where it is required), or null where null counts as missing.
func (r *reader) value(name string, p presence) (Raw, bool) {
	v := r.raw(name)
	if v == nil {
		if p == required {
			r.fail(name, "missing")
		}
		return nil, false
	}
	return v, p != optional || !v.IsNull()
}

func (r *reader) text(name string, p presence) string {
	v, ok := r.value(name, p)
	if !ok {
		return ""
	}
	s, ok := v.Text()
	if !ok {
		r.fail(name, "not a string")
	}
	return s
}

func (r *reader) optText(name string) *string {
	if _, ok := r.value(name, optional); !ok {
		return nil
	}
	return new(r.text(name, required))
}

func (r *reader) bool(name string, p presence) bool {
	v, ok := r.value(name, p)
	if !ok {
		return false
	}
	b, ok := v.Bool()
	if !ok {
		r.fail(name, "not a boolean")
	}
	return b
}

func (r *reader) uint(name string, p presence, limit uint64) uint64 {
	v, ok := r.value(name, p)
	if !ok {
		return 0
	}
	u, ok := v.Uint()
	if !ok || u > limit {
		r.fail(name, "not an integer of 0 to "+strconv.FormatUint(limit, 10))
		return 0
	}
	return u
}

func (r *reader) int(name string, p presence) int64 {
	v, ok := r.value(name, p)
	if !ok {
		return 0
	}
	i, ok := v.Int()
	if !ok {
		r.fail(name, "not an integer")
	}
	return i
}

func (r *reader) float32(name string, p presence) float32 {
	v, ok := r.value(name, p)
	if !ok {
		return 0
	}
	if c := v.first(); c != '-' && !isDigit(c) {
		r.fail(name, "not a number")
		return 0
	}
	f, err := strconv.ParseFloat(string(v), 32)
	if err != nil {
		r.fail(name, "not a 32-bit float")
	}
	return float32(f)
}

// hex fills dst and says whether the member was there.
func (r *reader) hex(name string, p presence, dst []byte) bool {
	v, ok := r.value(name, p)
	if !ok {
		return false
	}
	if !v.Hex(dst) {
		r.fail(name, "not "+strconv.Itoa(2*len(dst))+" hex digits")
		return false
	}
	return true
}

func (r *reader) hexBytes(name string, p presence, least, most int) []byte {
	v, ok := r.value(name, p)
	if !ok {
		return nil
	}
	b, ok := v.HexBytes(most)
	if !ok || len(b) < least {
		r.fail(name, "not hex of "+strconv.Itoa(least)+" to "+strconv.Itoa(most)+" bytes")
		return nil
	}
	return b
}

// b64u fills dst from unpadded base64url in its only canonical form.
func (r *reader) b64u(name string, p presence, dst []byte) bool {
	v, ok := r.value(name, p)
	if !ok {
		return false
	}
	if b, isText := v.Bytes(); !isText || !decodeB64u(dst, b) {
		r.fail(name, "not base64url of "+strconv.Itoa(len(dst))+" bytes")
		return false
	}
	return true
}

// object is a member that must be an object and is kept as it stands.
func (r *reader) object(name string, p presence) Raw {
	v, ok := r.value(name, p)
	if !ok {
		return nil
	}
	if !v.IsObject() {
		r.fail(name, "not an object")
		return nil
	}
	return v
}

// texts reads an array of strings; check (may be nil) refuses single ones.
func (r *reader) texts(name string, p presence, most int, check func(string) bool) []string {
	v, ok := r.value(name, p)
	if !ok {
		return nil
	}
	if !v.IsArray() {
		r.fail(name, "not an array")
		return nil
	}
	var out []string
	for it := v.list('['); it.next(); {
		s, ok := Raw(it.val).Text()
		if !ok || check != nil && !check(s) {
			r.fail(name, "has an element that is not allowed")
			return nil
		}
		if len(out) == most {
			r.fail(name, "more than "+strconv.Itoa(most)+" elements")
			return nil
		}
		out = append(out, s)
	}
	return out
}
