// Package duplex turns one HTTP exchange, whose request body runs up while the
// response body runs down, into a net.Conn.
package duplex
