package obfs

import (
	"fmt"
	"slices"

	"github.com/commucat/commucat/sdk"
)

var kindNames = [4]string{"initiation", "response", "cookie reply", "transport"}

// Check says what is wrong with the parameters: nil or sdk.ConfigErrors with the
// keys jc, jmin, jmax, s1 … s4, h1 … h4, i1 … i5, header_protection_key, padding.
// Plain WireGuard passes.
func (p *Params) Check() error {
	c := checker{p: p}
	c.junk()
	c.special()
	c.prefixes()
	c.types()
	if p.Padding.Low > p.Padding.High || p.Padding.High > MaxPadding {
		c.fail("padding", "must be a range of at most %d", MaxPadding)
	}
	if len(c.errs) == 0 {
		return nil
	}
	return c.errs
}

type checker struct {
	p    *Params
	errs sdk.ConfigErrors
}

func (c *checker) fail(key, format string, args ...any) {
	c.errs = append(c.errs, &sdk.ConfigError{Key: key, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) junk() {
	j := c.p.Junk
	switch {
	case j.Count < 0 || j.Count > MaxJunk:
		c.fail("jc", "must be 0 to %d", MaxJunk)
	case j.Min < 0 || j.Max < 0 || j.Min > MaxDatagram || j.Max > MaxDatagram:
		c.fail("jmax", "must be at most %d, so that no path cuts it", MaxDatagram)
	case j.Count > 0 && j.Min >= j.Max:
		// Older peers divide by the difference.
		c.fail("jmax", "must be larger than jmin")
	}
}

func (c *checker) special() {
	for i := range c.p.Special {
		n := c.p.Special[i].Len()
		key := fmt.Sprintf("i%d", i+1)
		if n > MaxDatagram {
			c.fail(key, "makes %d bytes; at most %d pass every path", n, MaxDatagram)
		}
		if plainSize(n) {
			c.fail(key, "makes %d bytes, the length of a WireGuard handshake message", n)
		}
	}
}

func (c *checker) prefixes() {
	p := c.p
	for k := range kindNames {
		key, limit := fmt.Sprintf("s%d", k+1), MaxDatagram-messageSize[k]
		if Kind(k) == Transport {
			limit = MaxTransportPrefix
		}
		switch s := p.Prefix[k]; {
		case s < 0 || s > limit:
			c.fail(key, "must be 0 to %d", limit)
		case p.Protected() && s < NonceSize:
			c.fail(key, "must be at least %d: header protection draws its nonce there", NonceSize)
		}
	}
	if len(c.errs) > 0 {
		return
	}
	sizes := []int{}
	for k := Initiation; k <= Cookie; k++ {
		n, key := p.size(k), fmt.Sprintf("s%d", k+1)
		if p.Prefix[k] > 0 && plainSize(n) {
			c.fail(key, "makes the %s %d bytes long, as a message of plain WireGuard", kindNames[k], n)
		}
		if slices.Contains(sizes, n) {
			c.fail(key, "makes the %s %d bytes long, as another message", kindNames[k], n)
		}
		sizes = append(sizes, n)
	}
	for _, n := range []int{InitiationSize, ResponseSize, CookieSize} {
		if p.Prefix[Transport] > 0 && p.isDataSize(n) {
			c.fail("s4", "makes data packets of %d bytes, the length of a WireGuard handshake message", n)
		}
	}
}

// isDataSize says whether a transport message can have n bytes on the wire: inner
// packets are padded to 16; the least is a keepalive, then TCP over IPv6 (64).
func (p *Params) isDataSize(n int) bool {
	inner := n - p.size(Transport)
	return inner == 0 || inner >= 64 && inner%16 == 0
}

func (c *checker) types() {
	for k, r := range c.p.Type {
		key := fmt.Sprintf("h%d", k+1)
		if r.Low > r.High || r.Low == 0 {
			c.fail(key, "must be a number from 1 on, or a range of them")
			continue
		}
		for l := range k {
			if r.Overlaps(c.p.Type[l]) {
				c.fail(key, "overlaps h%d", l+1)
			}
		}
	}
}
