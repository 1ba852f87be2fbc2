// Package inner is the network inside the tunnel: a TCP stack in user space (gVisor's)
// with one IPv6 address, joined to WireGuard by a tun.Device without a kernel
// interface.
//
// Both directions move many packets at once, because the cost is per packet: TCP
// hands down segments of up to 32 KiB that Read cuts to the size of the path, up
// to 128 packets a call; Write joins the packets of a flow that follow each other
// before TCP sees them. Checksums of what comes are not looked at: WireGuard has
// authenticated it.
package inner
