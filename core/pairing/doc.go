// Package pairing adds devices to accounts.
//
// The way of our own clients is a link code: 16 random bytes inside a signed
// link, good for five minutes and one use, which the new device claims inside
// the Noise handshake with its own key (account.Request.Pair). Nothing can be
// guessed there, and no private key ever leaves the device.
//
// For the reference's REST interface (only with compat.public_api) there is also
// a short code, XXXX-XXXX of 31 symbols. It is guessable, so three limits hold
// together: 5 tries a code, 5 a minute a source prefix, 60 a minute in all. The
// first half of a short code finds the record and the second half is compared in
// constant time, so that wrong guesses count against the code they aim at. Every
// failure looks the same to the caller.
//
//	record kind "pair-short", id = first four symbols:
//	  SHA-256 of the whole code, tries so far, id of the pairing code, sealed code
//
// The account and issuer of a code, and its spending, are package account's: a code
// is spent in the transaction that adds the device.
package pairing
