package ccp

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"
)

// writer appends compact JSON. Callers write keys in ascending order.
type writer struct {
	b     []byte
	comma bool
}

func (w *writer) sep() {
	if w.comma {
		w.b = append(w.b, ',')
	}
	w.comma = true
}

func (w *writer) open(bracket byte) *writer {
	w.b, w.comma = append(w.b, bracket), false
	return w
}

func (w *writer) close(bracket byte) []byte {
	w.b, w.comma = append(w.b, bracket), true
	return w.b
}

// key starts a member; the next call writes its value.
func (w *writer) key(name string) *writer {
	w.sep()
	w.b = append(AppendString(w.b, name), ':')
	return w
}

// elem starts an element of an array.
func (w *writer) elem() *writer {
	w.sep()
	return w
}

func (w *writer) text(s string)     { w.b = AppendString(w.b, s) }
func (w *writer) uint(v uint64)     { w.b = strconv.AppendUint(w.b, v, 10) }
func (w *writer) int(v int64)       { w.b = strconv.AppendInt(w.b, v, 10) }
func (w *writer) float32(v float32) { w.b = appendFloat32(w.b, v) }
func (w *writer) bool(v bool)       { w.b = strconv.AppendBool(w.b, v) }
func (w *writer) hex(v []byte)      { w.b = append(appendHex(append(w.b, '"'), v), '"') }
func (w *writer) raw(v Raw)         { w.b = append(w.b, v...) }
func (w *writer) b64u(v []byte) {
	w.b = append(w.b, '"')
	w.b = base64.RawURLEncoding.AppendEncode(w.b, v)
	w.b = append(w.b, '"')
}

func (w *writer) optText(name, s string) {
	if s != "" {
		w.key(name).text(s)
	}
}

func (w *writer) optHex(name string, v []byte) {
	if len(v) != 0 {
		w.key(name).hex(v)
	}
}

func (w *writer) optRaw(name string, v Raw) {
	if v != nil {
		w.key(name).raw(v)
	}
}

func (w *writer) texts(list []string) {
	w.open('[')
	for _, s := range list {
		w.elem().text(s)
	}
	w.close(']')
}

func (w *writer) ranges(list [][2]uint64) {
	w.open('[')
	for _, r := range list {
		w.elem().open('[')
		w.elem().uint(r[0])
		w.elem().uint(r[1])
		w.close(']')
	}
	w.close(']')
}

const lowerHex = "0123456789abcdef"

func appendHex(dst, v []byte) []byte {
	for _, c := range v {
		dst = append(dst, lowerHex[c>>4], lowerHex[c&15])
	}
	return dst
}

func decodeB64u(dst, src []byte) bool {
	if len(src) != base64.RawURLEncoding.EncodedLen(len(dst)) || slices.Contains(src, '\n') || slices.Contains(src, '\r') {
		return false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(dst, src)
	return err == nil && n == len(dst)
}

// AppendString appends s as a JSON string with the escapes of the reference
// (ccp1.md 2.4): quote, backslash and the code points below U+0020, nothing
// else. s must be valid UTF-8.
func AppendString(dst []byte, s string) []byte { return appendQuoted(dst, s) }

func appendQuoted[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\t':
			dst = append(dst, `\t`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\r':
			dst = append(dst, `\r`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', lowerHex[c>>4], lowerHex[c&15])
		}
	}
	return append(append(dst, s[start:]...), '"')
}

// appendFloat32 writes the shortest digits that read back as v.
func appendFloat32(dst []byte, v float32) []byte {
	short, _ := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
	return appendFloat(dst, short)
}

// Member is one member of an object that [AppendObject] writes.
type Member struct {
	Key   string
	Value Raw
}

// Text makes a member whose value is a string (valid UTF-8).
func Text(key, value string) Member { return Member{key, AppendString(nil, value)} }

// Uint makes a member whose value is an unsigned integer.
func Uint(key string, value uint64) Member {
	return Member{key, strconv.AppendUint(nil, value, 10)}
}

// Bool makes a member whose value is a boolean.
func Bool(key string, value bool) Member { return Member{key, strconv.AppendBool(nil, value)} }

// AppendObject appends an object with the members in ascending order of their
// keys. Members with a nil value are left out; keys must differ. The slice
// given is sorted in place.
func AppendObject(dst []byte, members ...Member) []byte {
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Key, b.Key) })
	w := writer{b: dst}
	w.open('{')
	for _, m := range members {
		w.optRaw(m.Key, m.Value)
	}
	return w.close('}')
}

// FormatTime writes a time as the JSON of frames and REST has it: RFC 3339 in
// UTC with offset +00:00 and 0, 3, 6 or 9 digits of fraction.
func FormatTime(t time.Time) string {
	layout := "2006-01-02T15:04:05"
	switch ns := t.Nanosecond(); {
	case ns == 0:
	case ns%1e6 == 0:
		layout += ".000"
	case ns%1e3 == 0:
		layout += ".000000"
	default:
		layout += ".000000000"
	}
	return t.UTC().Format(layout) + "+00:00"
}
