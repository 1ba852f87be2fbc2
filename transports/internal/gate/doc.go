// Package gate decides, before a byte of the body is read, whether a request
// on the public port is ours or the cover site's.
package gate
