// Package http2 carries a session in one POST whose request body runs up
// while the response body runs down: over HTTP/2 a stream, over HTTP/1.1 a
// full-duplex exchange in chunks.
//
// [New] is the server half, [NewDialer] the client half with a browser's TLS
// hello. Over HTTP the response can only end with the handler, so the server's
// conn has no half-close; the client's has. A deadline that has passed ends
// the stream on either side.
package http2
