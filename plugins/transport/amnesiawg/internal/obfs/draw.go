package obfs

import (
	"crypto/rand"
	mathrand "math/rand/v2"
)

// Generation is a wire format of AmneziaWG: which parameters its peers know.
type Generation string

// The generations that parameters can be drawn for.
const (
	// V1 knows junk, S1, S2 and single type words.
	V1 Generation = "1.0"
	// V1_5 adds S3, S4 and special packets.
	V1_5 Generation = "1.5"
	// V2 adds ranges of type words.
	V2 Generation = "2.0"
	// V3 adds header protection.
	V3 Generation = "3.0"
)

// Draw makes parameters that no other deployment has, for peers of generation g.
// Special packets and padding are left out: those are a choice.
func Draw(g Generation) *Params {
	for {
		p := draw(g)
		if p.Check() == nil && p.distinct() {
			return p
		}
	}
}

func draw(g Generation) *Params {
	p := &Params{Junk: DrawJunk()}
	p.Prefix[Initiation] = between(15, 150)
	p.Prefix[Response] = between(15, 150)
	if g != V1 {
		p.Prefix[Cookie] = between(15, 120)
		p.Prefix[Transport] = between(NonceSize, 31)
	}
	// Four quarters of the space, shuffled. Some programs hold type words as
	// signed numbers, so the upper half stays free; 1 to 4 are WireGuard's own.
	const quarter = 1 << 29
	for k, q := range mathrand.Perm(4) {
		low := uint32(q*quarter) + 5 + mathrand.Uint32N(quarter/2)
		width := mathrand.Uint32N(quarter/4) + quarter/8
		if g == V1 || g == V1_5 {
			width = 0
		}
		p.Type[k] = Range{low, low + width}
	}
	if g == V3 {
		_, _ = rand.Read(p.Protection[:]) // never fails
	}
	return p
}

// DrawJunk draws what comes before an initiation. It may differ from client to
// client. All of it is longer than plain WireGuard's handshake messages: other
// programs draw any length between the two.
func DrawJunk() Junk {
	j := Junk{Count: between(3, 8), Min: between(InitiationSize+1, 320)}
	j.Max = j.Min + between(200, 800)
	return j
}

// distinct says that no data packet has the length of a handshake message, neither
// of ours, which older receivers would misread now and then, nor of plain WireGuard's.
func (p *Params) distinct() bool {
	for k := Initiation; k <= Cookie; k++ {
		if p.isDataSize(p.size(k)) {
			return false
		}
		// Whatever stands in the packet: it is padded to 16 bytes. Without S4 there
		// is one such length, too short for a packet.
		inner := messageSize[k] - p.size(Transport)
		if p.Prefix[Transport] > 0 && inner >= 0 && inner%16 == 0 {
			return false
		}
	}
	return true
}

func between(low, high int) int { return low + mathrand.IntN(high-low+1) }
