// Package account holds the accounts of a relay: users, their devices and
// certificates, invitations, pairing codes, bearer tokens and friend lists.
//
// Every operation that changes something is exactly one Commit of the
// storage.Directory, with conditions on all records it read to decide. So two
// nodes, or two goroutines, that race leave one winner and no half-made account,
// and a refused request leaves no trace.
//
// Records, by kind (values are JSON):
//
//	user          id                  profile and the list of its device ids
//	handle        folded handle       the user that holds it
//	device        device id           key, status, certificate, epoch of its tokens
//	key-event     device/time         what happened to a device's key (kept 400 days)
//	retired-key   hex of the key      a key that was rotated away; never taken again
//	invite        hex SHA-256         quota and use of an invitation
//	pair          hex SHA-256         a pairing code: account and issuer
//	token         hex SHA-256         a bearer token: device and epoch
//	friends       user id             the friend list
//	owed-notice   device/time/kind    a change that other devices have still to be told of
//
// Secrets (invitations, pairing codes, tokens) are stored as SHA-256 only.
// A device record never disappears: a revoked device id stays refused for ever.
//
// All methods are safe for concurrent use. Methods return *Error for a refusal,
// whose Code goes on the wire, and the directory's own error when it failed.
package account
