// Package masque is the transport plugin "masque": the relay as an ordinary
// HTTP/3 site whose CONNECT requests, for those who may, carry the conversation.
//
// # What a stranger sees
//
// One site on UDP and TCP of the same port: the relay's cover, with Alt-Svc over
// TCP. Every request that does not prove a guest's key is answered by the site
// itself, with the very same code: no 407, no answer of our own.
//
// # How a guest proves itself
//
// By the Concealed scheme of RFC 9729: an Ed25519 signature over what the TLS
// connection exports, so that a proof that was overheard opens nothing elsewhere.
// The key id names guest, expiry and generation and is vouched for by a MAC of the
// relay; nothing is kept for each guest but what was revoked.
//
// # What a guest may ask for
//
//	CONNECT host:port                       the stream, when it names the site itself
//	CONNECT :protocol=websocket             the stream in WebSocket messages (RFC 9220)
//	CONNECT :protocol=connect-udp           UDP to the site itself, ended in this
//	        /.well-known/masque/udp/H/P/    process by a second QUIC, or to a target
//	                                        on the operator's list (RFC 9298)
//
// Over TCP the same holds with HTTP/2, and the client half turns to it within a
// second where QUIC is blocked. The client can also come through somebody else's
// MASQUE proxy: then the proxy sees who but not what, the relay what but not who.
package masque
