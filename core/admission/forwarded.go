package admission

import (
	"net/http"
	"net/netip"
	"strings"
)

// maxHops is how many forwarded addresses are looked at, from the right.
const maxHops = 16

// Trusts says whether addr is one of the trusted proxies.
func (g *Gate) Trusts(addr netip.Addr) bool { return trusts(g.opt.Trusted, addr) }

func trusts(trusted []netip.Prefix, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range trusted {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Client returns the client's address for a request that came from peer: peer
// itself, unless peer is a trusted proxy, in which case the rightmost forwarded
// address that is not one. hidden is true when a trusted proxy named none.
//
// Forwarded (RFC 7239) wins over X-Forwarded-For. An entry that is no address
// ends the search: what stands left of it was not written by a trusted proxy.
func (g *Gate) Client(peer netip.Addr, h http.Header) (addr netip.Addr, hidden bool) {
	return Client(peer, h, g.opt.Trusted)
}

// Client is Gate.Client for a given list of proxies.
func Client(peer netip.Addr, h http.Header, trusted []netip.Prefix) (addr netip.Addr, hidden bool) {
	peer = peer.Unmap().WithZone("")
	if !trusts(trusted, peer) {
		return peer, false
	}
	values, parse := h["Forwarded"], forwardedFor
	if len(values) == 0 {
		values, parse = h["X-Forwarded-For"], parseNode
	}
	hops := 0
	for i := len(values) - 1; i >= 0; i-- {
		rest := values[i]
		for more := true; more; {
			var item string
			item, rest, more = lastItem(rest)
			a, ok := parse(strings.TrimSpace(item))
			if hops++; !ok || hops > maxHops {
				return peer, true
			}
			if !trusts(trusted, a) {
				return a, false
			}
		}
	}
	return peer, true
}

// lastItem cuts the last comma-separated item off s. Commas inside quotes
// cannot be told from the right without reading all; no node contains one, so
// such an item fails to parse and ends the search.
func lastItem(s string) (item, rest string, more bool) {
	if i := strings.LastIndexByte(s, ','); i >= 0 {
		return s[i+1:], s[:i], true
	}
	return s, "", false
}

// forwardedFor reads the for parameter of one RFC 7239 element.
func forwardedFor(element string) (netip.Addr, bool) {
	for pair := range strings.SplitSeq(element, ";") {
		name, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok || !strings.EqualFold(name, "for") {
			continue
		}
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1]
		}
		return parseNode(value)
	}
	return netip.Addr{}, false
}

// parseNode reads ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT.
func parseNode(s string) (netip.Addr, bool) {
	if len(s) > 64 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		a = ap.Addr()
	}
	a = a.Unmap().WithZone("")
	if a.IsUnspecified() {
		return netip.Addr{}, false
	}
	return a, true
}
