package reality

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/commucat/commucat/sdk"
)

var errLoop = errors.New("it is this port itself")

// checkLoop refuses a cover that is this listener itself: strangers would go round
// in circles. listen may lack an address, which stands for all of this machine.
func checkLoop(ctx context.Context, c cover, listen net.Addr) error {
	remote, ok := c.(*site)
	at, tcp := listen.(*net.TCPAddr)
	if !ok || !tcp || int(remote.port) != at.Port {
		return nil
	}
	ips, err := remote.addresses(ctx)
	if err != nil {
		return err
	}
	all := len(at.IP) == 0 || at.IP.IsUnspecified()
	if slices.ContainsFunc(ips, func(a netip.Addr) bool { ip := net.IP(a.AsSlice()); return ip.Equal(at.IP) || all && ofThisMachine(ip) }) {
		return &sdk.Error{Kind: sdk.Invalid, Op: "reality", Text: "the cover " + c.String() + " is unfit", Err: errLoop}
	}
	return nil
}

// ofThisMachine reports whether an address is one of this machine's own. The sandbox hides
// the interfaces; there, an address that can be bound is.
func ofThisMachine(ip net.IP) bool {
	if ip.IsLoopback() || ip.IsUnspecified() {
		return true
	}
	if local, err := net.InterfaceAddrs(); err == nil {
		return slices.ContainsFunc(local, func(a net.Addr) bool {
			n, ok := a.(*net.IPNet)
			return ok && n.IP.Equal(ip)
		})
	}
	return bindable(ip)
}

// Addresses of documentation, which no machine has.
var (
	nobody4 = net.IPv4(192, 0, 2, 1)
	nobody6 = net.ParseIP("2001:db8::1")
)

// bindable reports whether ip can be bound, unless the system lets any be bound.
func bindable(ip net.IP) bool {
	bound := func(ip net.IP) bool {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip})
		if err != nil {
			return false
		}
		_ = c.Close()
		return true
	}
	nobody := nobody6
	if ip.To4() != nil {
		nobody = nobody4
	}
	return bound(ip) && !bound(nobody)
}
