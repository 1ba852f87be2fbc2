// Package audit records security and operator events as a chain of records and brings
// them to the ledgers.
//
// Recorded are registrations, changes of devices and keys, revocations, invitations,
// purges, peers, configuration, start and stop. Messages and sessions are not: a
// chain that cannot forget must not hold who talks to whom. Ids of users and devices
// appear as keyed digests only; with the key (Subject) an operator finds the records
// of one device, and destroying the key makes them anonymous.
//
// # How a record travels
//
// Record puts an event into a bounded queue and returns; one goroutine chains what is
// queued and writes it to a spool in the data folder with one fsync. Another goroutine
// for each ledger reads the spool and submits what that ledger lacks, with growing
// pauses while it fails. A slow or absent ledger therefore delays nobody and loses
// nothing: the spool keeps every record until all ledgers have it, over restarts too.
// Only a full queue (the local disk is behind) makes Record wait, and only a full
// spool makes it fail.
//
// A signed checkpoint beside the spool says how long the chain is; Open refuses a
// chain that is shorter or another one.
package audit
