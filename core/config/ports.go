package config

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/commucat/commucat/sdk"
)

// claim is an address that some key wants to listen on.
type claim struct {
	key      string
	tcp, udp bool
	address  Address
	pos      sdk.Position
}

// overlaps reports whether both cannot be bound: a network in common, one port, and
// the same host or one of them every address of its family.
func (a claim) overlaps(b claim) bool {
	if !(a.tcp && b.tcp || a.udp && b.udp) || a.address.Port() != b.address.Port() || a.address.Port() == 0 {
		return false
	}
	x, y := a.address.Host(), b.address.Host()
	if x == y || x == "" || y == "" {
		return true
	}
	p, errX := netip.ParseAddr(x)
	q, errY := netip.ParseAddr(y)
	if errX != nil || errY != nil {
		return false
	}
	if p.Unmap() == q.Unmap() {
		return true
	}
	every := func(one, other netip.Addr) bool {
		return one.IsUnspecified() && (one.Is6() || other.Unmap().Is4())
	}
	return every(p, q) || every(q, p)
}

// ports names both places where two keys claim one port.
func (k *checker) ports() {
	var claims []claim
	add := func(c claim) {
		for _, other := range claims {
			if !c.overlaps(other) {
				continue
			}
			first, second := other, c
			if later(first.pos, second.pos) {
				first, second = second, first
			}
			where := ""
			if !first.pos.IsZero() {
				where = " (" + first.pos.String() + ")"
			}
			k.out = append(k.out, fault(second.key, second.pos, "%s is already claimed by %s = %q%s",
				second.address, first.key, first.address, where))
			return
		}
		claims = append(claims, c)
	}
	for _, a := range k.addresses("server", "listen") {
		add(a)
	}
	for _, a := range append(k.addresses("admin", "listen"), k.addresses("federation", "listen")...) {
		add(a)
	}
	for _, name := range slices.Sorted(maps.Keys(k.c.Transports)) {
		t := k.c.Transports[name]
		if !t.Enabled {
			continue
		}
		tcp, udp := k.networks(k.c.PluginOf(name), t.Keys)
		for _, c := range claimsOf("transport."+name+".listen", t.Keys["listen"]) {
			c.tcp, c.udp = tcp, udp
			add(c)
		}
	}
}

func later(a, b sdk.Position) bool {
	return a.File == b.File && (a.Line > b.Line || a.Line == b.Line && a.Column > b.Column)
}

// networks are those in which a transport's listen key claims its ports.
func (k *checker) networks(plugin string, keys map[string]any) (tcp, udp bool) {
	i := slices.IndexFunc(k.env.Plugins, func(p Known) bool { return p.Kind == sdk.Transport && p.Name == plugin })
	if i < 0 || !k.env.Plugins[i].UDP {
		return true, false
	}
	return k.env.Plugins[i].TCP && bare(keys["tcp"]) != "front", true
}

// addresses are those given for a key, or its default's.
func (k *checker) addresses(section, key string) []claim {
	full := section + "." + key
	m, _ := plainTable(k.c.raw[section])
	if raw, ok := m[key]; ok {
		return claimsOf(full, raw)
	}
	var out []claim
	if full == "server.listen" {
		for _, a := range k.c.Server.Listen {
			out = append(out, claim{key: full, tcp: true, address: a})
		}
	}
	return out
}

// claimsOf reads one address, or a list of them, with their places, as claims of TCP
// ports; what is no address has been named elsewhere.
func claimsOf(key string, raw any) []claim {
	var pos sdk.Position
	for {
		l, ok := raw.(sdk.Located)
		if !ok {
			break
		}
		pos, raw = l.At, l.Value
	}
	switch v := raw.(type) {
	case []any:
		var out []claim
		for _, e := range v {
			for _, c := range claimsOf(key, e) {
				if c.pos.IsZero() {
					c.pos = pos
				}
				out = append(out, c)
			}
		}
		return out
	case string:
		var out []claim
		for s := range strings.SplitSeq(v, ",") {
			a := Address(strings.TrimSpace(s))
			if _, _, err := splitAddress(string(a)); err == nil {
				out = append(out, claim{key: key, tcp: true, address: a, pos: pos})
			}
		}
		return out
	}
	return nil
}
