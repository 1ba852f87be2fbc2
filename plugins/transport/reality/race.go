package reality

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	// dialCoverTime bounds a connection to the cover, over all its addresses.
	dialCoverTime = 10 * time.Second
	// attemptDelay is after how long the next address is tried beside those under way (RFC
	// 8305 section 5).
	attemptDelay = 250 * time.Millisecond
)

// connect opens a connection to one address.
type connect func(ctx context.Context, to netip.AddrPort) (net.Conn, error)

// connectTCP is without keep-alives: strangers must not see ours as the cover's.
func connectTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	return d.DialContext(ctx, "tcp", to.String())
}

// race connects to the addresses one after the other, to the next one when an attempt
// fails or attemptDelay passes, and gives the first connection. The error is the first
// address's.
func race(ctx context.Context, to connect, addresses []netip.Addr, port uint16) (net.Conn, netip.Addr, error) {
	if len(addresses) == 1 {
		conn, err := to(ctx, netip.AddrPortFrom(addresses[0], port))
		return conn, addresses[0], err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		at   netip.Addr
		err  error
	}
	results := make(chan result)
	attempt := func(at netip.Addr) {
		conn, err := to(ctx, netip.AddrPortFrom(at, port))
		select {
		case results <- result{conn, at, err}:
		case <-ctx.Done(): // another was first
			if err == nil {
				_ = conn.Close()
			}
		}
	}
	first, failed := error(nil), 0
	next := time.NewTimer(0)
	defer next.Stop()
	for started := 0; failed < len(addresses); {
		select {
		case <-next.C:
			if started < len(addresses) {
				go attempt(addresses[started])
				started++
				next.Reset(attemptDelay)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, r.at, nil
			}
			if failed++; first == nil || r.at == addresses[0] {
				first = r.err
			}
			next.Reset(0)
		case <-ctx.Done():
			if first == nil {
				first = ctx.Err()
			}
			return nil, netip.Addr{}, first
		}
	}
	if first == nil {
		first = errors.New("no address")
	}
	return nil, netip.Addr{}, first
}

// interleave is an answer without duplicates, its families in turn, beginning with that of
// the first (RFC 8305 section 4).
func interleave(answer []netip.Addr) []netip.Addr {
	var same, other []netip.Addr
	for _, a := range answer {
		a = a.Unmap()
		switch {
		case slices.Contains(same, a) || slices.Contains(other, a):
		case len(same) == 0 || a.Is4() == same[0].Is4():
			same = append(same, a)
		default:
			other = append(other, a)
		}
	}
	out := make([]netip.Addr, 0, len(same)+len(other))
	for i := range max(len(same), len(other)) {
		if i < len(same) {
			out = append(out, same[i])
		}
		if i < len(other) {
			out = append(out, other[i])
		}
	}
	return out
}
