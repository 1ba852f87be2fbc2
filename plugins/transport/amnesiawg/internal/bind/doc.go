// Package bind is WireGuard's conn.Bind over UDP sockets that somebody else has
// bound, with AmneziaWG's obfuscation on the way in and out.
//
//	wireguard ──Send──▶ type word, MACs, prefix, key stream ──▶ sendmmsg, GSO
//	wireguard ◀─Receive─ classify, MAC1, inner type and MACs ◀── recvmmsg, GRO
//	                         │ initiations
//	                         ▼
//	                      gate: cookies under load, static key, time, Guard
//
// What a stranger can send ends at the classifier, at MAC1, one hash, or as data for no
// session that there was. While a socket is flooded the classifier also stands in the
// kernel, as a socket filter: what it drops takes no room from known peers and wakes
// nobody. Initiations
// with a good MAC1 go through the gate: one goroutine opens the sender's static
// key (one X25519), asks the Guard, refuses what was seen before, and hands on at
// most as many as WireGuard answers, so that WireGuard itself is never under load.
// When initiations pile up the gate asks for cookies. So cookies are made and
// redeemed here alone, and WireGuard's own MAC2 fields stay empty on both sides.
package bind
