// Package api is the relay's HTTP interfaces that are not transports: REST for
// clients (/api/…) on the public port, and the operator's interface (health,
// readiness, metrics, links, accounts, keys) on a unix socket.
//
// On the public port REST exists only for who shows a good entry token, also with
// a session's bearer token: looking that up takes a time that would tell a stranger
// where he is. Everybody else gets the cover site's answer, unless
// compat.public_api is on. Errors are problem details (RFC 9457) with a stable
// member "code".
//
// The operator's socket (0600) admits this user and root. Over TCP, only if
// configured and only on loopback, it asks for a bearer token and checks Host.
package api
