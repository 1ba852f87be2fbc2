package link

import (
	"crypto/ed25519"
	"encoding/binary"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
)

// The tags of a link's TLVs. Unknown ones from tagSkip on are skipped, those
// below belong to a newer version.
const (
	tagRoot         = 1 // public 32
	tagNoise        = 2 // version u32 | public 32
	tagDomain       = 3 // UTF-8
	tagEntry        = 4 // id 8 | key 16
	tagSecret       = 5 // 16
	tagExpires      = 6 // unix seconds u32
	tagEndpoint     = 7 // len u8 | transport | len u8 | host | port u16 | params
	tagPin          = 8 // SHA-256
	tagCapabilities = 9 // varint, not zero

	tagSkip = 128
)

const (
	headBytes = 2 // version, kind
	sigBytes  = ed25519.SignatureSize
)

// body writes everything that is signed.
func (l Link) body() []byte {
	b := make([]byte, 0, 512)
	b = append(b, version, byte(l.Kind))
	b = append(tlv(b, tagRoot, 32), l.Root[:]...)
	b = binary.BigEndian.AppendUint32(tlv(b, tagNoise, 36), l.NoiseVersion)
	b = append(b, l.NoisePublic[:]...)
	b = append(tlv(b, tagDomain, len(l.Domain)), l.Domain...)
	if l.Kind != Address {
		b = append(tlv(b, tagEntry, 24), l.Entry.ID[:]...)
		b = append(b, l.Entry.Key[:]...)
		b = append(tlv(b, tagSecret, 16), l.Secret[:]...)
		b = binary.BigEndian.AppendUint32(tlv(b, tagExpires, 4), uint32(l.Expires.Unix()))
	}
	for _, e := range l.Endpoints {
		b = tlv(b, tagEndpoint, 4+len(e.Transport)+len(e.Host)+len(e.Params))
		b = append(append(b, byte(len(e.Transport))), e.Transport...)
		b = append(append(b, byte(len(e.Host))), e.Host...)
		b = binary.BigEndian.AppendUint16(b, e.Port)
		b = append(b, e.Params...)
	}
	for _, pin := range l.Pins {
		b = append(tlv(b, tagPin, 32), pin[:]...)
	}
	if l.Capabilities != 0 {
		b = tlv(b, tagCapabilities, ccp.VarintLen(l.Capabilities))
		b = ccp.AppendVarint(b, l.Capabilities)
	}
	return b
}

func tlv(b []byte, tag byte, n int) []byte {
	return ccp.AppendVarint(append(b, tag), uint64(n))
}

// decode reads signed bytes with their signature: shape first, then signature.
func decode(b []byte) (Link, error) {
	switch {
	case len(b) > MaxBytes:
		return Link{}, badLink(Malformed, "longer than 1024 bytes")
	case len(b) < 1:
		return Link{}, badLink(Malformed, "empty")
	case b[0] == 0:
		return Link{}, badLink(Malformed, "version 0")
	case b[0] != version:
		return Link{}, badLink(NewerVersion, "")
	case len(b) < headBytes+sigBytes:
		return Link{}, badLink(Malformed, "cut off")
	}
	body, signature := b[:len(b)-sigBytes], b[len(b)-sigBytes:]
	l := Link{Kind: Kind(body[1]), Raw: b}
	p := parser{link: &l}
	for rest, last := body[headBytes:], -1; len(rest) > 0; {
		tag, value, tail, err := splitTLV(rest)
		switch {
		case err != nil:
			return Link{}, err
		case int(tag) < last:
			return Link{}, badLink(Malformed, "tags not ascending")
		case int(tag) == last && tag != tagEndpoint && tag != tagPin && tag < tagSkip:
			return Link{}, badLink(Malformed, "tag repeated")
		}
		if err := p.field(tag, value); err != nil {
			return Link{}, err
		}
		last, rest = int(tag), tail
	}
	if !p.seen(tagRoot) || !p.seen(tagNoise) || !p.seen(tagDomain) || !p.seen(tagEndpoint) {
		return Link{}, badLink(Malformed, "a required field is missing")
	}
	if err := l.check(); err != nil {
		return Link{}, err
	}
	if !ed25519.Verify(l.Root[:], signed(signatureLabel, body), signature) {
		return Link{}, badLink(BadSignature, "")
	}
	return l, nil
}

// splitTLV takes one TLV from the front; lengths must be in shortest form.
func splitTLV(b []byte) (tag byte, value, rest []byte, err error) {
	size, n, err := ccp.Varint(b[1:])
	if err != nil || n != ccp.VarintLen(size) || size > uint64(len(b)-1-n) {
		return 0, nil, nil, badLink(Malformed, "length of a field")
	}
	end := 1 + n + int(size)
	return b[0], b[1+n : end : end], b[end:], nil
}

type parser struct {
	link *Link
	tags uint16
}

func (p *parser) seen(tag byte) bool { return p.tags&(1<<tag) != 0 }

func (p *parser) field(tag byte, v []byte) error {
	if tag >= tagSkip {
		return nil
	}
	if tag < tagRoot || tag > tagCapabilities {
		return badLink(NewerVersion, "unknown field")
	}
	p.tags |= 1 << tag
	if !p.set(tag, v) {
		return badLink(Malformed, "a field has the wrong form")
	}
	return nil
}

func (p *parser) set(tag byte, v []byte) bool {
	l := p.link
	switch tag {
	case tagRoot:
		return fill(l.Root[:], v)
	case tagNoise:
		if len(v) != 36 {
			return false
		}
		l.NoiseVersion = binary.BigEndian.Uint32(v)
		return fill(l.NoisePublic[:], v[4:])
	case tagDomain:
		l.Domain = string(v)
		return true
	case tagEntry:
		if len(v) != 24 {
			return false
		}
		l.Entry = &Entry{ID: [8]byte(v[:8]), Key: [16]byte(v[8:])}
		return true
	case tagSecret:
		return fill(l.Secret[:], v)
	case tagExpires:
		if len(v) != 4 {
			return false
		}
		l.Expires = time.Unix(int64(binary.BigEndian.Uint32(v)), 0).UTC()
		return true
	case tagEndpoint:
		e, ok := endpoint(v)
		l.Endpoints = append(l.Endpoints, e)
		return ok
	case tagPin:
		var pin [32]byte
		ok := fill(pin[:], v)
		l.Pins = append(l.Pins, pin)
		return ok
	default:
		bits, n, err := ccp.Varint(v)
		l.Capabilities = bits
		return err == nil && bits != 0 && n == len(v) && n == ccp.VarintLen(bits)
	}
}

func fill(dst, v []byte) bool { return copy(dst, v) == len(dst) && len(v) == len(dst) }

func endpoint(v []byte) (e Endpoint, ok bool) {
	if e.Transport, v, ok = short(v); !ok {
		return e, false
	}
	if e.Host, v, ok = short(v); !ok || len(v) < 2 {
		return e, false
	}
	e.Port, e.Params = binary.BigEndian.Uint16(v), string(v[2:])
	return e, true
}

func short(v []byte) (text string, rest []byte, ok bool) {
	if len(v) == 0 || len(v)-1 < int(v[0]) {
		return "", nil, false
	}
	n := 1 + int(v[0])
	return string(v[1:n]), v[n:], true
}
