// Package admission holds the limits that apply before a connection has proved
// a device. It is charged at accept, before TLS, and never looks at a payload.
//
// Sources are counted by address prefix (IPv4 /32 and /24, IPv6 /64 and /48),
// never by port, and always together with the transport, so that a transport
// that lies about addresses can use up only its own budget. Where the source is
// hidden, the circuit or, failing that, the transport itself is the source.
//
// A Ticket stands for one connection (or one stream of a shared connection, which
// costs as much from the second on) and travels in its context. It holds a place among the unauthenticated
// connections of its prefixes until Authenticated or Release.
//
// When the whole relay is under pressure, a prefix that has lately used much of
// its own budget is refused before one that has not: a flood spends its own
// prefixes' allowance and leaves the others' alone.
//
// All tables are bounded; nothing here sleeps, starts a goroutine or does I/O.
package admission
