// Package debug is the ledger that writes one log line for each record and keeps
// none: for development, and beside another ledger to see what it is given.
package debug
