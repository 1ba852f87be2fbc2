package obfs

import "time"

// Kind is one of WireGuard's four messages.
type Kind uint8

// The kinds, in the order of the parameters S1..S4 and H1..H4. None is a
// datagram that is none of them.
const (
	Initiation Kind = iota
	Response
	Cookie
	Transport
	None
)

// Sizes of the messages in bytes; of transport messages the least.
const (
	InitiationSize = 148
	ResponseSize   = 92
	CookieSize     = 64
	TransportSize  = 32
	HeaderSize     = 16 // of a transport message
)

// Limits of parameters.
const (
	// MaxJunk bounds Jc; with five special packets and the initiation itself a
	// burst stays below 128 datagrams, which older peers need.
	MaxJunk = 64
	// MaxDatagram bounds junk, special packets and handshake messages on the
	// wire, so that they pass every IPv6 path in one piece (1280 - 40 - 8).
	MaxDatagram = 1232
	// MaxTransportPrefix bounds S4.
	MaxTransportPrefix = 128
	// MaxPadding bounds what content padding adds.
	MaxPadding = 512
	// NonceSize is how much of a prefix header protection needs.
	NonceSize = 12
	// trailerLimit is the size that random trailers fill up to (generation 3.1).
	trailerLimit = 500
)

// Specials are the five special packets I1..I5.
type Specials [5]Template

// Params are the obfuscation parameters of one listener. The zero value is not
// valid: Plain is plain WireGuard. They must not be changed while they are in use.
type Params struct {
	// Junk is Jc, Jmin and Jmax: before each initiation Count datagrams of Min to
	// Max random bytes. The sender's own affair.
	Junk Junk
	// Special are I1..I5, sent before the junk. The sender's own affair.
	Special Specials
	// Prefix is S1..S4. Both sides must agree.
	Prefix [4]int
	// Type is H1..H4. The sender's range must lie within the receiver's.
	Type [4]Range
	// Protection is the header protection key of generation 3, zero where there
	// is none. Both sides must agree.
	Protection [32]byte
	// Trailers says that handshake messages end in random bytes (generation
	// 3.1). Both sides must agree.
	Trailers bool
	// Padding is how many zero bytes are added to an inner packet, at random.
	// The sender's own affair.
	Padding Range
}

// Junk is how many junk datagrams are sent before an initiation, and their size.
type Junk struct{ Count, Min, Max int }

// Plain are the parameters of plain WireGuard.
func Plain() *Params {
	return &Params{Type: [4]Range{{1, 1}, {2, 2}, {3, 3}, {4, 4}}}
}

// IsPlain says whether what is sent is plain WireGuard.
func (p *Params) IsPlain() bool {
	q := Plain()
	return p.Junk.Count == 0 && p.Special.Empty() && p.Prefix == q.Prefix && p.Type == q.Type && !p.Protected() && !p.Trailers
}

// Protected says whether headers are covered by a key stream.
func (p *Params) Protected() bool { return p.Protection != [32]byte{} }

// Empty says whether no special packet is set.
func (s *Specials) Empty() bool {
	for i := range s {
		if s[i].Len() > 0 {
			return false
		}
	}
	return true
}

// Render makes the datagrams of the special packets.
func (s *Specials) Render(now time.Time) [][]byte {
	var out [][]byte
	for i := range s {
		if s[i].Len() > 0 {
			out = append(out, s[i].Append(nil, now))
		}
	}
	return out
}

// size is the fixed length of a handshake message on the wire, without trailer.
func (p *Params) size(k Kind) int { return p.Prefix[k] + messageSize[k] }

var messageSize = [4]int{InitiationSize, ResponseSize, CookieSize, TransportSize}
