package link

import (
	"encoding/base64"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// marshal writes the content in the order of the specification. Clients accept
// any order: the bytes are signed, not the meaning.
func (c Catalogue) marshal() []byte {
	b := make([]byte, 0, 512)
	b = append(b, `{"v":1,"domain":`...)
	b = ccp.AppendString(b, c.Domain)
	b = append(b, `,"serial":`...)
	b = strconv.AppendUint(b, c.Serial, 10)
	b = append(b, `,"issued":`...)
	b = strconv.AppendInt(b, c.Issued.Unix(), 10)
	b = append(b, `,"expires":`...)
	b = strconv.AppendInt(b, c.Expires.Unix(), 10)
	b = append(b, `,"noise":[`...)
	for i, k := range c.Noise {
		b = comma(b, i)
		b = append(b, `{"version":`...)
		b = strconv.AppendUint(b, uint64(k.Version), 10)
		b = append(b, `,"public":`...)
		b = appendHex(b, k.Public[:])
		b = append(b, `,"not_after":`...)
		b = strconv.AppendInt(b, k.NotAfter.Unix(), 10)
		b = append(b, '}')
	}
	b = append(b, `],"ca":[`...)
	for i, ca := range c.CA {
		b = appendHex(comma(b, i), ca[:])
	}
	b = appendNames(append(b, `],"features":[`...), c.Features)
	b = appendNames(append(b, `],"min":[`...), c.Min)
	b = append(b, ']')
	if c.RootNext != nil {
		b = appendHex(append(b, `,"root_next":`...), c.RootNext[:])
	}
	return append(b, '}')
}

func comma(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return b
}

func appendHex(b, v []byte) []byte { return append(hex.AppendEncode(append(b, '"'), v), '"') }

func appendNames(b []byte, names []string) []byte {
	for i, name := range names {
		b = ccp.AppendString(comma(b, i), name)
	}
	return b
}

// parseCatalogue reads the signed content; unknown keys are skipped.
func parseCatalogue(b []byte) (Catalogue, error) {
	v, err := ccp.ParseRaw(b)
	if err != nil || !v.IsObject() {
		return Catalogue{}, badCatalogue(Malformed, "not a JSON object")
	}
	switch n, ok := v.Get("v").Uint(); {
	case !ok || n == 0:
		return Catalogue{}, badCatalogue(Malformed, "v")
	case n != catalogueVersion:
		return Catalogue{}, badCatalogue(NewerVersion, "")
	}
	var c Catalogue
	ok := true
	note := func(good bool) { ok = ok && good }
	c.Domain, ok = v.Get("domain").Text()
	var good bool
	c.Serial, good = v.Get("serial").Uint()
	note(good)
	c.Issued, good = seconds(v.Get("issued"))
	note(good)
	c.Expires, good = seconds(v.Get("expires"))
	note(good)
	note(v.Get("noise").IsArray() && v.Get("ca").IsArray())
	for e := range v.Get("noise").Elements() {
		var k NoiseKey
		version, good := e.Get("version").Uint()
		note(good && version <= math.MaxUint32)
		k.Version = uint32(version)
		note(e.Get("public").Hex(k.Public[:]))
		k.NotAfter, good = seconds(e.Get("not_after"))
		note(good && len(c.Noise) < MaxNoiseKeys)
		c.Noise = append(c.Noise, k)
	}
	for e := range v.Get("ca").Elements() {
		var ca [32]byte
		note(e.Hex(ca[:]))
		c.CA = append(c.CA, ca)
	}
	c.Features, good = names(v.Get("features"))
	note(good)
	c.Min, good = names(v.Get("min"))
	note(good)
	if next := v.Get("root_next"); next != nil {
		c.RootNext = new([32]byte)
		note(next.Hex(c.RootNext[:]))
	}
	if !ok {
		return Catalogue{}, badCatalogue(Malformed, "a key is missing or has the wrong form")
	}
	if err := c.check(); err != nil {
		return Catalogue{}, err
	}
	return c, nil
}

func seconds(v ccp.Raw) (time.Time, bool) {
	n, ok := v.Uint()
	return time.Unix(int64(n), 0).UTC(), ok && n <= math.MaxUint32<<8
}

func names(v ccp.Raw) ([]string, bool) {
	if !v.IsArray() {
		return nil, false
	}
	var list []string
	for e := range v.Elements() {
		name, ok := e.Text()
		if !ok || len(name) > 32 || len(list) == ccp.MaxCapabilities {
			return nil, false
		}
		list = append(list, name)
	}
	return list, true
}

// AppendJSON appends the wire form {"signed": base64url, "signature": hex}.
func (s Signed) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"signature":`...)
	dst = appendHex(dst, s.Signature[:])
	dst = append(dst, `,"signed":"`...)
	dst = base64.RawURLEncoding.AppendEncode(dst, s.Content)
	return append(dst, `"}`...)
}

// MarshalJSON is AppendJSON to a fresh slice.
func (s Signed) MarshalJSON() ([]byte, error) { return s.AppendJSON(nil), nil }

// UnmarshalJSON is ParseSigned.
func (s *Signed) UnmarshalJSON(b []byte) (err error) {
	*s, err = ParseSigned(b)
	return err
}

// ParseSigned reads the wire form. Nothing is verified yet.
func ParseSigned(b []byte) (Signed, error) {
	v, err := ccp.ParseRaw(b)
	if err != nil {
		return Signed{}, badCatalogue(Malformed, "not JSON")
	}
	var s Signed
	if !v.Get("signature").Hex(s.Signature[:]) {
		return Signed{}, badCatalogue(Malformed, "signature")
	}
	text, ok := v.Get("signed").Text()
	// The decoder passes over line breaks.
	if !ok || len(text) > base64.RawURLEncoding.EncodedLen(MaxCatalogue) || strings.ContainsAny(text, "\r\n") {
		return Signed{}, badCatalogue(Malformed, "signed")
	}
	if s.Content, err = base64.RawURLEncoding.Strict().DecodeString(text); err != nil {
		return Signed{}, badCatalogue(Malformed, "signed")
	}
	return s, nil
}
