package split

import "net/netip"

const (
	// maxStreams bounds the streams of one server.
	maxStreams = 1 << 16
	// maxNear, maxFar and maxHidden bound those of one IPv4 /32 or IPv6 /64, of one
	// IPv4 /24 or IPv6 /48, and of all clients together whose address is not their
	// own: hidden ones, and those of a proxy on this machine.
	maxNear   = maxStreams / 16
	maxFar    = maxStreams / 4
	maxHidden = maxStreams / 2
)

// places counts the streams of each source, so that none takes all of them.
type places map[netip.Prefix]int

// sources are the prefixes that a client counts for; the zero value is all that are
// hidden.
type sources struct{ near, far netip.Prefix }

func sourcesOf(a netip.Addr) sources {
	a = a.Unmap().WithZone("")
	near, far := 32, 24
	switch {
	case !a.IsValid() || a.IsLoopback():
		return sources{}
	case a.Is6():
		near, far = 64, 48
	}
	var s sources
	s.near, _ = a.Prefix(near)
	s.far, _ = a.Prefix(far)
	return s
}

// take counts one more; false if that is too many.
func (p places) take(s sources) bool {
	switch {
	case !s.near.IsValid():
		if p[s.near] >= maxHidden {
			return false
		}
	case p[s.near] >= maxNear || p[s.far] >= maxFar:
		return false
	default:
		p[s.far]++
	}
	p[s.near]++
	return true
}

// leave gives a place back.
func (p places) leave(s sources) {
	p.less(s.near)
	if s.near.IsValid() {
		p.less(s.far)
	}
}

func (p places) less(x netip.Prefix) {
	if p[x]--; p[x] <= 0 {
		delete(p, x)
	}
}
