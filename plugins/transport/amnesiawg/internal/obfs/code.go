package obfs

import (
	"encoding/binary"
	"errors"
	"math"
)

// The compact code of parameters, for links. Numbers are unsigned varints.
//
//	version u8 = 1
//	flags u8: 1 header protection, 2 trailers, 4 padding, 8 special packets
//	jc | jmin | jmax - jmin
//	s1 | s2 | s3 | s4
//	4 times: low u32 little-endian | high - low
//	[ key 32 ] [ padding low | high - low ]
//	[ 5 times: number of tags | tags ]   tag u8 | count or length | literal
const codeVersion = 1

const (
	flagProtection = 1 << iota
	flagTrailers
	flagPadding
	flagSpecial
	flagsKnown = flagProtection | flagTrailers | flagPadding | flagSpecial
)

// Marshal writes the compact code of p, which must pass Check.
func (p *Params) Marshal() []byte {
	b := []byte{codeVersion, 0}
	number := func(v int) { b = binary.AppendUvarint(b, uint64(v)) }
	number(p.Junk.Count)
	number(p.Junk.Min)
	number(max(0, p.Junk.Max-p.Junk.Min))
	for _, s := range p.Prefix {
		number(s)
	}
	for _, r := range p.Type {
		b = binary.LittleEndian.AppendUint32(b, r.Low)
		b = binary.AppendUvarint(b, uint64(r.High-r.Low))
	}
	if p.Protected() {
		b[1] |= flagProtection
		b = append(b, p.Protection[:]...)
	}
	if p.Trailers {
		b[1] |= flagTrailers
	}
	if p.Padding != (Range{}) {
		b[1] |= flagPadding
		number(int(p.Padding.Low))
		number(int(p.Padding.High - p.Padding.Low))
	}
	if !p.Special.Empty() {
		b[1] |= flagSpecial
		for i := range p.Special {
			b = p.Special[i].marshal(b)
		}
	}
	return b
}

func (t Template) marshal(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(t.parts)))
	for _, p := range t.parts {
		b = append(b, byte(p.tag))
		switch p.tag {
		case tagTime:
		case tagBytes:
			b = binary.AppendUvarint(b, uint64(len(p.data)))
			b = append(b, p.data...)
		default:
			b = binary.AppendUvarint(b, uint64(p.count))
		}
	}
	return b
}

var errCode = errors.New("obfuscation parameters are damaged, or made for a newer version")

// Unmarshal reads a compact code. Exactly what Marshal writes is accepted; the
// result has passed Check.
func Unmarshal(b []byte) (*Params, error) {
	r := reader{b: b}
	version, flags := r.byte(), r.byte()
	if version != codeVersion || flags&^flagsKnown != 0 {
		return nil, errCode
	}
	p := &Params{}
	p.Junk.Count = r.number(MaxJunk)
	p.Junk.Min = r.number(MaxDatagram)
	p.Junk.Max = p.Junk.Min + r.number(MaxDatagram)
	for k := range p.Prefix {
		p.Prefix[k] = r.number(MaxDatagram)
	}
	for k := range p.Type {
		low := binary.LittleEndian.Uint32(r.take(4))
		p.Type[k] = Range{low, low + uint32(r.varint(uint64(math.MaxUint32-low)))}
	}
	if flags&flagProtection != 0 {
		copy(p.Protection[:], r.take(32))
	}
	p.Trailers = flags&flagTrailers != 0
	if flags&flagPadding != 0 {
		low := r.number(MaxPadding)
		p.Padding = Range{uint32(low), uint32(low + r.number(MaxPadding))}
	}
	if flags&flagSpecial != 0 {
		for i := range p.Special {
			p.Special[i] = r.template()
		}
	}
	if r.bad || len(r.b) > 0 || p.Check() != nil || string(p.Marshal()) != string(b) {
		return nil, errCode
	}
	return p, nil
}

// reader takes a code apart; after a mistake it gives zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return make([]byte, n)
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte { return r.take(1)[0] }

func (r *reader) number(limit int) int { return int(r.varint(uint64(limit))) }

func (r *reader) varint(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 || v > limit {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) template() Template {
	var t Template
	for range r.number(MaxDatagram) {
		p := part{tag: tag(r.byte())}
		switch p.tag {
		case tagTime:
		case tagBytes:
			p.data = append([]byte(nil), r.take(r.number(MaxDatagram))...)
			r.bad = r.bad || len(p.data) == 0
		case tagRandom, tagLetters, tagDigits:
			p.count = r.number(MaxDatagram)
			r.bad = r.bad || p.count == 0
		default:
			r.bad = true
		}
		if r.bad {
			return Template{}
		}
		t.parts = append(t.parts, p)
	}
	return t
}
