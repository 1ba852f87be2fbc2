package ccp

import (
	"iter"
	"math"
	"unicode/utf8"
)

// Raw is one JSON value as it stood in a payload that [ValidControl] accepted,
// without space around it; nil means that there is none. It aliases the
// payload. Its methods never fail loudly: a value of another type answers false.
type Raw []byte

// ParseRaw checks b like [ValidControl] and returns the value in it.
func ParseRaw(b []byte) (Raw, error) {
	if err := ValidControl(b); err != nil {
		return nil, err
	}
	return trim(b), nil
}

func trim(b []byte) Raw {
	s := scanner{b: b}
	s.space()
	end := len(b)
	for end > s.i && (b[end-1] == ' ' || b[end-1] == '\t' || b[end-1] == '\n' || b[end-1] == '\r') {
		end--
	}
	return Raw(b[s.i:end:end])
}

func (v Raw) first() byte {
	if len(v) == 0 {
		return 0
	}
	return v[0]
}

// IsObject says that the value is an object.
func (v Raw) IsObject() bool { return v.first() == '{' }

// IsArray says that the value is an array.
func (v Raw) IsArray() bool { return v.first() == '[' }

// IsNull says that the value is there and null.
func (v Raw) IsNull() bool { return v.first() == 'n' }

// Bool reads true or false.
func (v Raw) Bool() (value, ok bool) { return v.first() == 't', v.first() == 't' || v.first() == 'f' }

// Uint reads an unsigned integer that is written as one: no sign, fraction or
// exponent.
func (v Raw) Uint() (uint64, bool) { return parseUint(v) }

// Int reads a signed integer that is written as one.
func (v Raw) Int() (int64, bool) {
	if v.first() != '-' {
		u, ok := parseUint(v)
		return int64(u), ok && u <= math.MaxInt64
	}
	u, ok := parseUint(v[1:])
	return -int64(u), ok && u > 0 && u <= 1<<63
}

// Text reads a string.
func (v Raw) Text() (string, bool) {
	b, ok := v.Bytes()
	return string(b), ok
}

// Bytes reads a string as bytes. They alias the payload unless the string holds
// escapes.
func (v Raw) Bytes() ([]byte, bool) {
	if v.first() != '"' {
		return nil, false
	}
	return unquote(v), true
}

// Hex reads a string of exactly 2*len(dst) hex digits of either case into dst.
func (v Raw) Hex(dst []byte) bool {
	b, ok := v.Bytes()
	return ok && len(b) == 2*len(dst) && decodeHex(dst, b)
}

// HexBytes reads a string of an even number of hex digits, at most limit bytes.
func (v Raw) HexBytes(limit int) ([]byte, bool) {
	b, ok := v.Bytes()
	if !ok || len(b)%2 != 0 || len(b)/2 > limit {
		return nil, false
	}
	dst := make([]byte, len(b)/2)
	return dst, decodeHex(dst, b)
}

func decodeHex(dst, src []byte) bool {
	for i := range dst {
		hi, lo := hexDigit(src[2*i]), hexDigit(src[2*i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

// Elements goes through an array; anything else is an empty one.
func (v Raw) Elements() iter.Seq[Raw] {
	return func(yield func(Raw) bool) {
		for it := v.list('['); it.next(); {
			if !yield(it.val) {
				return
			}
		}
	}
}

// Members goes through an object in the order of its text, repeated keys
// included; anything else is an empty object. The keys are unescaped.
func (v Raw) Members() iter.Seq2[string, Raw] {
	return func(yield func(string, Raw) bool) {
		for it := v.list('{'); it.next(); {
			if !yield(string(it.key), it.val) {
				return
			}
		}
	}
}

// Get is the member of that name, the last one if there are several; nil where
// the value is no object or has no such member.
func (v Raw) Get(name string) Raw {
	var found Raw
	for it := v.list('{'); it.next(); {
		if string(it.key) == name {
			found = it.val
		}
	}
	return found
}

// list is an iterator over the elements of an array or the members of an
// object, without allocations. The text must be valid.
type list struct {
	s        scanner
	object   bool
	key, val []byte
}

// list starts at the value's opening bracket; a value that opens otherwise has
// no elements.
func (v Raw) list(open byte) list {
	if v.first() != open {
		return list{}
	}
	return list{s: scanner{b: v, i: 1}, object: open == '{'}
}

func (l *list) next() bool {
	switch l.s.next() {
	case 0, ']', '}':
		return false
	case ',':
		l.s.space()
	default:
		l.s.i--
	}
	if l.object {
		start := l.s.i
		l.s.skip()
		l.key = unquote(l.s.b[start:l.s.i])
		l.s.next() // the colon
		l.s.space()
	}
	start := l.s.i
	l.s.skip()
	l.val = l.s.b[start:l.s.i:l.s.i]
	return true
}

// skip passes one value of valid JSON, in one pass and without recursion.
func (s *scanner) skip() {
	depth := 0
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case '"':
			for s.i++; s.i < len(s.b) && s.b[s.i] != '"'; s.i++ {
				if s.b[s.i] == '\\' {
					s.i++
				}
			}
			s.i++
		case '{', '[':
			depth++
			s.i++
			continue
		case '}', ']':
			depth--
			s.i++
		case ',', ':', ' ', '\t', '\n', '\r':
			s.i++
			continue
		default:
			for s.i < len(s.b) && !delimiter(s.b[s.i]) {
				s.i++
			}
		}
		if depth == 0 {
			return
		}
	}
}

func delimiter(c byte) bool {
	switch c {
	case ',', ':', ']', '}', ' ', '\t', '\n', '\r':
		return true
	}
	return false
}

// unquote gives the content of a valid string with its quotes. It aliases q
// where there is nothing to unescape.
func unquote(q []byte) []byte {
	q = q[1 : len(q)-1 : len(q)-1]
	i := 0
	for i < len(q) && q[i] != '\\' {
		i++
	}
	if i == len(q) {
		return q
	}
	out := append(make([]byte, 0, len(q)), q[:i]...)
	for i < len(q) {
		if q[i] != '\\' {
			out = append(out, q[i])
			i++
			continue
		}
		n := escapeLen(q[i:])
		out = appendUnescaped(out, q[i:i+n])
		i += n
	}
	return out
}

func appendUnescaped(dst, esc []byte) []byte {
	switch esc[1] {
	case 'b':
		return append(dst, '\b')
	case 'f':
		return append(dst, '\f')
	case 'n':
		return append(dst, '\n')
	case 'r':
		return append(dst, '\r')
	case 't':
		return append(dst, '\t')
	case 'u':
		r, _ := hex4(esc)
		if len(esc) == 12 {
			low, _ := hex4(esc[6:])
			r = 0x10000 + (r-0xd800)<<10 + (low - 0xdc00)
		}
		return utf8.AppendRune(dst, r)
	default:
		return append(dst, esc[1])
	}
}
