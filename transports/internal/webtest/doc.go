// Package webtest runs a web transport for tests: a TLS server on loopback
// with a cover site, a certificate of its own and entry tokens.
package webtest
