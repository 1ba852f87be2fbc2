package masque

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/commucat/commucat/sdk/transport"
)

// target is one entry of the list of what guests may reach.
type target struct {
	domain  string       // "" for a network
	below   bool         // the names below domain, not domain itself
	network netip.Prefix // of one address or many
	port    uint16       // 0 for all
}

// parseTarget reads "host:port", "*.domain:port", "network:port"; IPv6 in brackets.
func parseTarget(text string) (target, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return target{}, fmt.Errorf("target %q: write it as host:port", text)
	}
	var t target
	if port != "*" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return target{}, fmt.Errorf("target %q: the port must be a number from 1 to 65535, or * for all", text)
		}
		t.port = uint16(n)
	}
	if p, err := netip.ParsePrefix(host); err == nil {
		t.network = p.Masked()
		return t, nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		t.network = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		return t, nil
	}
	t.domain = strings.ToLower(strings.TrimSuffix(host, "."))
	if rest, ok := strings.CutPrefix(t.domain, "*."); ok {
		t.domain, t.below = rest, true
	}
	if t.domain == "" || strings.ContainsAny(t.domain, "*/ ") {
		return target{}, fmt.Errorf("target %q: %q is no host name", text, host)
	}
	return t, nil
}

// allows says whether the list names a target. Names are compared as they are
// written; whether their addresses are public is asked after they were resolved.
func allows(list []target, host string, port uint16) bool {
	addr, err := netip.ParseAddr(host)
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	for _, t := range list {
		switch {
		case t.port != 0 && t.port != port:
		case err == nil:
			if t.domain == "" && t.network.Contains(addr.Unmap()) {
				return true
			}
		case t.domain == "":
		case t.below && strings.HasSuffix(name, "."+t.domain), !t.below && name == t.domain:
			return true
		}
	}
	return false
}

// special are networks that are not the public Internet (IANA's registries of
// special-purpose addresses); of IPv6 only 2000::/3 is looked at.
func special() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	} {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// public says whether an address is one of the public Internet.
func public(a netip.Addr) bool {
	a = a.Unmap()
	if a.Zone() != "" || !a.IsValid() || a.Is6() && !netip.MustParsePrefix("2000::/3").Contains(a) {
		return false
	}
	for _, p := range special() {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// udpDialer opens a connected UDP socket to a target of the list.
type udpDialer func(ctx context.Context, host string, port uint16) (*net.UDPConn, error)

// dialPublic is the udpDialer in use: it resolves the name itself and connects to the
// first public address, so that no second look at the name can lead elsewhere.
func dialPublic(ctx context.Context, host string, port uint16) (*net.UDPConn, error) {
	return dialAllowed(ctx, host, port, public)
}

func dialAllowed(ctx context.Context, host string, port uint16, allowed func(netip.Addr) bool) (*net.UDPConn, error) {
	addrs, err := new(net.Resolver).LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		if !allowed(a) {
			continue
		}
		c, err := new(net.Dialer).DialContext(ctx, "udp", netip.AddrPortFrom(a.Unmap(), port).String())
		if err == nil {
			return c.(*net.UDPConn), nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, errProhibited
	}
	return nil, errors.Join(errs...)
}

// peerOf is where a connected socket leads.
func peerOf(c net.Conn) netip.AddrPort { return transport.AddrPort(c.RemoteAddr()) }
