// Package websocket carries a session in one WebSocket over HTTP/1.1: the
// payloads of binary messages are a byte stream each way. A close frame ends
// one direction, so both ends have half-close.
//
// [New] is the server half, [NewDialer] the client half, whose TLS hello
// offers http/1.1 alone, as browsers do for wss.
package websocket
