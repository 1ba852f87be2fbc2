package obfs

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// MaxTagText bounds the text of a special packet.
const MaxTagText = 8 << 10

// A Template is a special packet: tags one after the other, without anything
// between them.
//
//	<b 0xHEX>  these bytes        <r N>   N random bytes     <t>  Unix seconds,
//	<rc N>     N random letters   <rd N>  N random digits         4 bytes, big-endian
//
// The zero Template is no packet.
type Template struct{ parts []part }

// part is one tag. The names are a byte each in the compact code.
type part struct {
	tag   tag
	count int    // of random bytes
	data  []byte // of a literal
}

type tag byte

const (
	tagBytes   tag = 'b'
	tagRandom  tag = 'r'
	tagLetters tag = 'c'
	tagDigits  tag = 'd'
	tagTime    tag = 't'
)

var tagNames = map[string]tag{"b": tagBytes, "r": tagRandom, "rc": tagLetters, "rd": tagDigits, "t": tagTime}

const (
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits  = "0123456789"
)

// TagError is a mistake in a special packet; columns count bytes from 1.
type TagError struct {
	Column int
	Text   string
}

// Error is "column N: text".
func (e *TagError) Error() string { return fmt.Sprintf("column %d: %s", e.Column, e.Text) }

// ParseTemplate reads a special packet. Unlike other implementations it refuses
// what stands outside tags and tags it does not know. The error is a *TagError.
func ParseTemplate(s string) (Template, error) {
	var t Template
	bad := func(at int, format string, args ...any) (Template, error) {
		return Template{}, &TagError{at + 1, fmt.Sprintf(format, args...)}
	}
	if len(s) > MaxTagText {
		return bad(MaxTagText, "longer than %d bytes", MaxTagText)
	}
	for at := 0; at < len(s); {
		if s[at] != '<' {
			return bad(at, "%q stands outside a tag", s[at])
		}
		end := strings.IndexByte(s[at:], '>')
		if end < 0 {
			return bad(at, "the tag has no end")
		}
		name, value, hasValue := strings.Cut(s[at+1:at+end], " ")
		tag, known := tagNames[name]
		if !known {
			return bad(at+1, "unknown tag %.16q (known are b, r, rc, rd, t)", name)
		}
		p, text := newPart(tag, value, hasValue)
		if text != "" {
			return bad(at+1+len(name)+1, "<%s>: %s", name, text)
		}
		t.parts = append(t.parts, p)
		if t.Len() > MaxDatagram {
			return bad(at, "the packet grows beyond %d bytes", MaxDatagram)
		}
		at += end + 1
	}
	return t, nil
}

// newPart reads a tag's value and says what is wrong with it.
func newPart(t tag, value string, hasValue bool) (part, string) {
	switch {
	case t == tagTime && hasValue:
		return part{}, "takes no value"
	case t == tagTime:
		return part{tag: t}, ""
	case t == tagBytes:
		text, ok := strings.CutPrefix(value, "0x")
		data, err := hex.DecodeString(text)
		if !ok || err != nil || len(data) == 0 {
			return part{}, "needs 0x and an even number of hexadecimal digits"
		}
		return part{tag: t, data: data}, ""
	}
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n == 0 || n > MaxDatagram || value[0] == '0' || value[0] == '+' {
		return part{}, fmt.Sprintf("needs a number from 1 to %d", MaxDatagram)
	}
	return part{tag: t, count: int(n)}, ""
}

// Len is the packet's length, 0 for no packet.
func (t Template) Len() int {
	n := 0
	for _, p := range t.parts {
		n += p.len()
	}
	return n
}

func (p part) len() int {
	if p.tag == tagTime {
		return 4
	}
	return p.count + len(p.data)
}

// String is the text that ParseTemplate reads.
func (t Template) String() string {
	var b strings.Builder
	for _, p := range t.parts {
		switch p.tag {
		case tagBytes:
			b.WriteString("<b 0x" + hex.EncodeToString(p.data) + ">")
		case tagRandom:
			fmt.Fprintf(&b, "<r %d>", p.count)
		case tagLetters:
			fmt.Fprintf(&b, "<rc %d>", p.count)
		case tagDigits:
			fmt.Fprintf(&b, "<rd %d>", p.count)
		case tagTime:
			b.WriteString("<t>")
		}
	}
	return b.String()
}

// MarshalText is String.
func (t Template) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText is ParseTemplate.
func (t *Template) UnmarshalText(b []byte) error {
	v, err := ParseTemplate(string(b))
	if err == nil {
		*t = v
	}
	return err
}

// ConfigType names the type in configuration pages.
func (Template) ConfigType() string { return "special packet" }

// Append adds a packet made from the template to dst.
func (t Template) Append(dst []byte, now time.Time) []byte {
	for _, p := range t.parts {
		at := len(dst)
		switch p.tag {
		case tagBytes:
			dst = append(dst, p.data...)
		case tagTime:
			dst = binary.BigEndian.AppendUint32(dst, uint32(now.Unix()))
		default:
			dst = append(dst, make([]byte, p.count)...)
			fillFrom(dst[at:], p.tag)
		}
	}
	return dst
}

func fillFrom(b []byte, t tag) {
	var set string
	switch t {
	case tagLetters:
		set = letters
	case tagDigits:
		set = digits
	default:
		Fill(b)
		return
	}
	for i := range b {
		b[i] = set[rand.IntN(len(set))]
	}
}
