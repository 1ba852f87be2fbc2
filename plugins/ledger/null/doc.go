// Package null is the ledger that keeps nothing: for relays whose operator wants no
// audit records.
package null
