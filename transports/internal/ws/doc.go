// Package ws is the frame layer of WebSockets (RFC 6455) over an established
// connection: the payloads of binary messages as a byte stream in both
// directions, without a buffer or a goroutine while nothing moves.
package ws
