// Package amnesiawg is the transport over UDP that looks like nothing: WireGuard
// with AmneziaWG's obfuscation, and one TCP connection inside it for each stream.
// It needs no root, no kernel interface and no capability.
//
//	client                                                relay
//	stream ─ TCP ─ WireGuard ─ obfs ══ UDP ══ obfs ─ WireGuard ─ TCP ─ stream
//
// Who has no key gets no answer. A device's key is known to the relay before it
// comes (Server.Invite, Registrar.Register); a link carries a secret that makes sixteen keys. The relay
// adds a key to WireGuard when its first good handshake arrives and drops it when
// nothing has come for a while, so that only active devices cost memory. Each key has
// one address inside the tunnel, which WireGuard lets no other key use.
//
// A client that hears nothing says why, as far as that can be told: it asks the relay
// with a sealed datagram (see the question in internal/obfs), which a relay answers
// to who knows its public key and to nobody else.
//
// AmneziaWG's own apps can carry the stream as well: package conf writes their
// configuration file, and a client with carrier = "system" uses the tunnel that they
// have built.
package amnesiawg
