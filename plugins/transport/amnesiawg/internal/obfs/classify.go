package obfs

import "encoding/binary"

// A Sight is what a datagram may be, judged by its length and type word alone.
type Sight struct {
	// Kind is None for what no peer would send.
	Kind Kind
	// At is where the message begins.
	At int
}

// Look says what a datagram may be, trying the kinds in their order from one on.
// A handshake message must then prove itself by its MAC; where it cannot, Look goes
// on with the next kind: a data packet can have the same length, and by chance a
// word of that range at that place.
func (p *Params) Look(d []byte, from Kind) Sight {
	if len(d) < TransportSize {
		return Sight{Kind: None}
	}
	var mask uint32
	if p.Protected() {
		s := p.stream(d)
		mask = binary.LittleEndian.Uint32(s[:])
	}
	for k := from; k <= Cookie; k++ {
		n, at := p.size(k), p.Prefix[k]
		if (len(d) == n || p.Trailers && len(d) > n) && p.Type[k].Contains(binary.LittleEndian.Uint32(d[at:])^mask) {
			return Sight{Kind: k, At: at}
		}
	}
	if at := p.Prefix[Transport]; len(d) >= p.size(Transport) && p.Type[Transport].Contains(binary.LittleEndian.Uint32(d[at:])^mask) {
		return Sight{Kind: Transport, At: at}
	}
	// Peers of generation 2 sent keepalives without prefix at first.
	if len(d) == TransportSize && !p.Protected() && p.Type[Transport].Contains(binary.LittleEndian.Uint32(d)) {
		return Sight{Kind: Transport}
	}
	return Sight{Kind: None}
}

// Message takes prefix, trailer and key stream off a datagram. The result lies in
// d; its type word is still the wire's, because MACs cover that.
func (p *Params) Message(d []byte, s Sight) []byte {
	msg := d[s.At:]
	if s.Kind != Transport {
		msg = msg[:messageSize[s.Kind]]
	}
	if p.Protected() {
		covered := msg
		if s.Kind == Transport {
			covered = msg[:HeaderSize]
		}
		p.cover(d, covered)
	}
	return msg
}

// Uncover undoes what Message did to a datagram that was none.
func (p *Params) Uncover(d []byte, s Sight) {
	if p.Protected() {
		p.cover(d, d[s.At:s.At+messageSize[s.Kind]])
	}
}

// Handshake makes the datagram of a handshake message whose type word and MACs are
// done: prefix, key stream, trailer.
func (p *Params) Handshake(k Kind, msg []byte) []byte {
	n := p.Prefix[k] + len(msg)
	if trailer := p.trailer(n); trailer > 0 {
		n += trailer
	}
	d := make([]byte, n)
	at := p.Prefix[k]
	fillUnlike(d[:at])
	copy(d[at:], msg)
	Fill(d[at+len(msg):])
	if p.Protected() {
		p.cover(d, d[at:at+len(msg)])
	}
	return d
}

// trailer draws the length of a trailer after n bytes that makes no length of
// plain WireGuard.
func (p *Params) trailer(n int) int {
	if !p.Trailers || n >= trailerLimit {
		return 0
	}
	for range 8 {
		t := between(0, trailerLimit-n-1)
		if !plainSize(n + t) {
			return t
		}
	}
	return 0
}

// Header makes a transport message's header ready for the wire, in place: type
// word and key stream. prefix is what will stand before it.
func (p *Params) Header(prefix, msg []byte) {
	SetType(msg, p.Type[Transport].Pick())
	if p.Protected() {
		p.cover(prefix, msg[:HeaderSize])
	}
}
