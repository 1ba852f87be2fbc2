package ccp

import (
	"bytes"
	"slices"
)

// CanonicalJSON gives the form "JSON sorted" of ccp1.md: compact, keys in
// ascending byte order at every depth, the last of equal keys only, strings
// escaped as in 2.4, integers of 64 bits with their exact digits, all other
// numbers as shortest floats. It refuses what [ValidControl] refuses.
func CanonicalJSON(b []byte) ([]byte, error) {
	return AppendCanonicalJSON(make([]byte, 0, len(b)), b)
}

// AppendCanonicalJSON is CanonicalJSON appending to dst, which must not overlap
// b. On error dst is returned unchanged. The result can be longer than b, where
// an integer is too long for 64 bits for example.
func AppendCanonicalJSON(dst, b []byte) ([]byte, error) {
	if err := ValidControl(b); err != nil {
		return dst, err
	}
	c := canonicaliser{s: scanner{b: b}, out: dst}
	c.s.space()
	c.value()
	return c.out, nil
}

// canonicaliser walks valid JSON once. Members are written in the order they
// come and put in order when their object ends, so that deep nesting costs
// moves of bytes, not repeated parsing.
type canonicaliser struct {
	s       scanner
	out     []byte
	members []span // of the objects that are open, innermost last
	scratch []byte
}

// span is one written member: its key unescaped, and where it stands in out.
type span struct {
	key        []byte
	start, end int
}

func (c *canonicaliser) value() {
	switch c.s.b[c.s.i] {
	case '{':
		c.object()
	case '[':
		c.array()
	case '"':
		c.out = appendQuoted(c.out, c.str())
	case 't', 'f', 'n':
		start := c.s.i
		c.s.skip()
		c.out = append(c.out, c.s.b[start:c.s.i]...)
	default:
		start := c.s.i
		c.s.skip()
		c.out = appendNumber(c.out, c.s.b[start:c.s.i])
	}
}

func (c *canonicaliser) str() []byte {
	start := c.s.i
	c.s.skip()
	return unquote(c.s.b[start:c.s.i])
}

func (c *canonicaliser) array() {
	c.s.i++
	c.out = append(c.out, '[')
	for first := true; ; first = false {
		switch c.s.next() {
		case ']':
			c.out = append(c.out, ']')
			return
		case ',':
			c.s.space()
		default:
			c.s.i--
		}
		if !first {
			c.out = append(c.out, ',')
		}
		c.value()
	}
}

func (c *canonicaliser) object() {
	c.s.i++
	base := len(c.members)
	c.out = append(c.out, '{')
	body := len(c.out)
	for {
		switch c.s.next() {
		case '}':
			c.order(body, base)
			c.out = append(c.out, '}')
			c.members = c.members[:base]
			return
		case ',':
			c.s.space()
		default:
			c.s.i--
		}
		if len(c.out) > body {
			c.out = append(c.out, ',')
		}
		start := len(c.out)
		key := c.str()
		c.out = append(appendQuoted(c.out, key), ':')
		c.s.next() // the colon
		c.s.space()
		c.value()
		c.members = append(c.members, span{key, start, len(c.out)})
	}
}

// order sorts the members that out holds from body on.
func (c *canonicaliser) order(body, base int) {
	list := c.members[base:]
	ascending := true
	for i := 1; i < len(list) && ascending; i++ {
		ascending = bytes.Compare(list[i-1].key, list[i].key) < 0
	}
	if ascending {
		return
	}
	slices.SortStableFunc(list, func(a, b span) int { return bytes.Compare(a.key, b.key) })
	c.scratch = append(c.scratch[:0], c.out[body:]...)
	c.out = c.out[:body]
	for i, m := range list {
		if i+1 < len(list) && bytes.Equal(m.key, list[i+1].key) {
			continue
		}
		if len(c.out) > body {
			c.out = append(c.out, ',')
		}
		c.out = append(c.out, c.scratch[m.start-body:m.end-body]...)
	}
}
