package ccp

import "unicode/utf8"

// maxDepth is the number of nested arrays and objects that a control payload
// may have.
const maxDepth = 127

// ValidControl says whether b may be the payload of a control frame: at most
// MaxControl bytes (kind ControlLimit) holding exactly one JSON value of any
// type, as ccp1.md 1.4 describes it (kind Control). It does not allocate unless
// it fails, and takes time linear in the length.
func ValidControl(b []byte) error {
	if len(b) > MaxControl {
		return malformed(ControlLimit)
	}
	return validJSON(b)
}

func validJSON(b []byte) error {
	s := scanner{b: b}
	s.space()
	if !s.value(0) {
		return malformed(Control)
	}
	if s.space(); s.i != len(b) {
		return malformed(Control)
	}
	return nil
}

// scanner checks JSON from i on. Its methods leave i behind what they read and
// answer false where the input is not JSON; i is then of no use.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// next skips space and takes one byte, 0 at the end of the input.
func (s *scanner) next() byte {
	if s.space(); s.i == len(s.b) {
		return 0
	}
	s.i++
	return s.b[s.i-1]
}

func (s *scanner) value(depth int) bool {
	if s.i == len(s.b) {
		return false
	}
	switch s.b[s.i] {
	case '"':
		return s.str()
	case '{':
		return depth < maxDepth && s.object(depth+1)
	case '[':
		return depth < maxDepth && s.array(depth+1)
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

func (s *scanner) literal(text string) bool {
	if len(s.b)-s.i < len(text) || string(s.b[s.i:s.i+len(text)]) != text {
		return false
	}
	s.i += len(text)
	return true
}

func (s *scanner) array(depth int) bool {
	s.i++
	if s.space(); s.i < len(s.b) && s.b[s.i] == ']' {
		s.i++
		return true
	}
	for {
		s.space()
		if !s.value(depth) {
			return false
		}
		switch s.next() {
		case ',':
		case ']':
			return true
		default:
			return false
		}
	}
}

func (s *scanner) object(depth int) bool {
	s.i++
	if s.space(); s.i < len(s.b) && s.b[s.i] == '}' {
		s.i++
		return true
	}
	for {
		if s.space(); s.i == len(s.b) || s.b[s.i] != '"' || !s.str() {
			return false
		}
		if s.next() != ':' {
			return false
		}
		s.space()
		if !s.value(depth) {
			return false
		}
		switch s.next() {
		case ',':
		case '}':
			return true
		default:
			return false
		}
	}
}

// str reads a string whose opening quote is at i.
func (s *scanner) str() bool {
	b, i := s.b, s.i+1
	for i < len(b) {
		switch c := b[i]; {
		case c == '"':
			s.i = i + 1
			return true
		case c == '\\':
			n := escapeLen(b[i:])
			if n == 0 {
				return false
			}
			i += n
		case c < 0x20:
			return false
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n == 1 {
				return false
			}
			i += n
		}
	}
	return false
}

// escapeLen is the length of the escape at the front of b (which is a
// backslash): 2, 6, or 12 for a surrogate pair; 0 if it is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		r, ok := hex4(b)
		switch {
		case !ok || r >= 0xdc00 && r <= 0xdfff:
			return 0
		case r < 0xd800 || r > 0xdbff:
			return 6
		}
		if low, ok := hex4(b[6:]); ok && low >= 0xdc00 && low <= 0xdfff {
			return 12
		}
	}
	return 0
}

// hex4 reads \uXXXX from the front of b.
func hex4(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range b[2:6] {
		d := hexDigit(c)
		if d > 15 {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}

// hexDigit is the value of a digit of either case, 255 for anything else.
func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	default:
		return 255
	}
}
